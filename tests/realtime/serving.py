"""Calls over real sockets, with scripted engines and a database of its own: `python -m tests.realtime.serving`."""

import logging
import os
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "avatar_site.settings.test"

from avatar_site.web.limits import Limits
from avatar_site.web.server import Server  # before anything of Twisted

#: Its first sentence is 2.2 s long, its second one very much longer.
REPLY = "這是第一句話，說完了它才可以把電話掛斷喔。" + "第二句話卻是沒有人聽得完的，" * 20 + "完。"


def main() -> None:
    import django

    django.setup()
    from channels.auth import AuthMiddlewareStack
    from channels.routing import URLRouter
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore
    from django.core.management import call_command

    from conversations.models import Turn
    from realtime.admission import admission
    from realtime.routing import websocket_urlpatterns
    from tests.avatar_site.web.serving import ScriptedGate
    from tests.fakes import make_inference

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout, force=True)
    call_command("migrate", verbosity=0)
    user = User.objects.create_user("alice")
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    print(f"session {session.session_key}", flush=True)
    inference = make_inference(replies=[REPLY] * 10, ms_per_character=100)
    application = AuthMiddlewareStack(URLRouter(websocket_urlpatterns(inference)))
    endpoints = ["tcp:port=0:interface=127.0.0.1"]
    Server(application, gate=ScriptedGate(), limits=Limits(), drain=admission.drain, endpoints=endpoints).run()
    for turn in Turn.objects.order_by("sequence", "pk"):
        print(f"kept {turn.speaker} {turn.was_interrupted} {turn.text}", flush=True)


if __name__ == "__main__":
    main()
