from avatar_site.operations.processes import build_specs
from avatar_site.web.server import DRAIN_S
from realtime.admission import FINISH_SENTENCE_S


class TestTheWebProcess:
    def test_may_drain_before_it_is_killed(self) -> None:
        (web,) = build_specs(names=("web",), host="127.0.0.1", port=8000, is_behind_proxy=False)

        assert web.stop_timeout_s > DRAIN_S > FINISH_SENTENCE_S
