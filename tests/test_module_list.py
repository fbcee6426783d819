from tests.module_list import DOCUMENT, list_modules, replace_section


class TestModuleList:
    def test_is_what_the_modules_say(self) -> None:
        document = DOCUMENT.read_text()

        assert replace_section(document) == document, "run: python -m tests.module_list"

    def test_has_every_package(self) -> None:
        listed = list_modules()

        assert all(len(modules) > 10 for modules in listed.values())
        assert "call/machine.py" in dict(listed["realtime"])
