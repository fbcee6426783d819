import uuid

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import IntegrityError, transaction

from tests import factories
from voices.models import VoiceProfile
from voices.stock import STOCK_VOICES, write_stock_voices


@pytest.mark.django_db
class TestStockVoices:
    def test_are_there_after_migrating_under_the_same_ids_everywhere(self) -> None:
        heart = VoiceProfile.objects.get(engine_voice="af_heart")

        assert heart.pk == uuid.uuid5(uuid.NAMESPACE_URL, "avatar:stock-voice:af_heart")
        assert (heart.name, heart.language, heart.gender, heart.is_stock) == ("Heart", "en", "female", True)
        assert VoiceProfile.objects.filter(owner=None).count() == len(STOCK_VOICES) == 14

    def test_are_brought_up_to_date_not_doubled(self) -> None:
        VoiceProfile.objects.filter(engine_voice="af_heart").update(name="Old")

        write_stock_voices(VoiceProfile)

        assert VoiceProfile.objects.get(engine_voice="af_heart").name == "Heart"
        assert VoiceProfile.objects.count() == 14

    @pytest.mark.parametrize("voice", STOCK_VOICES, ids=lambda voice: voice.key)
    def test_agree_with_their_key(self, voice: object) -> None:
        stock = next(each for each in STOCK_VOICES if each == voice)

        assert stock.language == {"z": "zh", "a": "en", "b": "en"}[stock.key[0]]
        assert stock.gender == {"f": "female", "m": "male"}[stock.key[1]]


@pytest.mark.django_db(transaction=True)
class TestStockVoicesOfTransactionalTests:
    @pytest.mark.parametrize("time", ["first", "second"])
    def test_are_there_each_time(self, time: str) -> None:
        assert VoiceProfile.objects.count() == 14


class TestUsableBy:
    def test_are_stock_voices_and_ones_own(self, alice: User, bob: User) -> None:
        hers = factories.create_voice_profile(owner=alice)
        his = factories.create_voice_profile(owner=bob)

        usable = set(VoiceProfile.objects.usable_by(alice))

        assert hers in usable
        assert his not in usable
        assert len(usable) == 15

    def test_nothing_by_strangers(self, db: None) -> None:
        assert not VoiceProfile.objects.usable_by(AnonymousUser()).exists()


@pytest.mark.django_db
class TestConstraints:
    @pytest.mark.parametrize("wrong", [{"name": ""}, {"engine_voice": ""}, {"language": "fr"}, {"gender": "robot"}])
    def test_refuse_a_row_that_makes_no_sense(self, alice: User, wrong: dict[str, str]) -> None:
        with pytest.raises(IntegrityError), transaction.atomic():
            factories.create_voice_profile(owner=alice, **wrong)

    def test_refuse_a_second_stock_row_of_a_voice(self) -> None:
        with pytest.raises(IntegrityError), transaction.atomic():
            factories.create_voice_profile(owner=None, engine_voice="af_heart")
