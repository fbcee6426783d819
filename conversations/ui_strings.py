"""Strings of the interface that the scripts of the call page and of the history pages show."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from avatar_site.lib.ui_strings import SHARED_STRINGS, UiStrings

#: A script fills in `{name}`.
CALL_STRINGS: UiStrings = {
    **SHARED_STRINGS,
    "you": _("You"),
    "avatar": _("AVATAR"),
    "youSaid": _("You said: {text}"),
    "avatarSaid": _("AVATAR: {text}"),
    # The state of the call.
    "state_idle": _("Ready when you are"),
    "state_asking": _("Waiting for your permission"),
    "state_connecting": _("Connecting…"),
    "state_listening": _("Go ahead, I’m listening"),
    "state_hearing": _("Listening to you…"),
    "state_recognising": _("Got it…"),
    "state_thinking": _("Thinking…"),
    "state_speaking": _("Speaking"),
    "state_muted": _("Your microphone is off"),
    "state_holding": _("Keep holding, I’m listening"),
    "state_hold": _("Hold the button to talk"),
    "state_typing": _("Write to me"),
    "state_reconnecting": _("Connection lost, reconnecting…"),
    "state_offline": _("You are offline"),
    "state_full": _("All places are taken"),
    "state_warming": _("Warming up…"),
    "state_unavailable": _("I can’t answer just now"),
    "state_ended": _("The call has ended"),
    # What can be done in it.
    "hint_listening": _("Pause when you are done; I will answer."),
    "hint_hold": _("Or hold the space bar. Let go when you are done."),
    "hint_speaking": _("You can interrupt me at any time."),
    "hint_muted": _("Tap the microphone to be heard again."),
    "hint_heardNothing": _("I didn’t catch anything. Please say it again."),
    "mute": _("Turn the microphone off"),
    "unmute": _("Turn the microphone on"),
    "hold": _("Hold to talk"),
    "addMicrophone": _("Use the microphone"),
    "latency_stt": _("understood {seconds} s"),
    "latency_ttft": _("first word {seconds} s"),
    "latency_ttfa": _("first sound {seconds} s"),
    "latency_total": _("all {seconds} s"),
    # What went wrong: what happened, that nothing was lost, what to do.
    "typeInstead": _("Type instead"),
    "newConversation": _("New conversation"),
    "denied_text": _(
        "Your browser does not let this page hear you. Open the site settings beside the address, allow the microphone "
        "and try again. You can also type."
    ),
    "missing_text": _("Connect a microphone or a headset and try again. You can also type."),
    "taken_text": _("Another program is using the microphone. Close it and try again. You can also type."),
    "lost_text": _("It was unplugged or switched off. The conversation is kept. Connect it and try again, or type."),
    "insecure_text": _("Browsers only allow the microphone over https. Open this page with https, or type."),
    "unsupported_title": _("This browser can’t do voice"),
    "unsupported_text": _("Please use a recent Chrome, Edge, Firefox or Safari. You can also type."),
    "offline_text": _("What was said is kept. I’ll reconnect as soon as the network is back."),
    "reconnecting_title": _("Reconnecting"),
    "reconnecting_text": _("The connection dropped. What was said is kept, and we go on where we were."),
    "full_title": _("All places are taken"),
    "full_text": _("Others are talking right now. I keep trying and start as soon as a place is free."),
    "warming_title": _("Warming up"),
    "warming_text": _("I was only just started and will be with you within a minute or two. No need to reload."),
    "unavailable_title": _("I can’t answer just now"),
    "unavailable_text": _(
        "The part that listens and speaks is not reachable. What was said is kept; I’ll go on as soon as it is back."
    ),
    "expired_text": _("Your login has expired. What was said is kept."),
    "unknown_title": _("This conversation is gone"),
    "unknown_text": _("It may have been deleted. You can start a new one."),
    "replaced_title": _("This conversation goes on elsewhere"),
    "replaced_text": _("You opened it in another window or on another device. Nothing is lost; it can come back here."),
    "idle_title": _("Are you still there?"),
    "idleEnd_title": _("The call has ended"),
    "idleEnd_text": _("Nobody had said anything for a while. What was said is kept."),
    "idleEndUnkept_text": _("Nobody had said anything for a while. Nothing of it was kept, as you wished."),
    "notKept_title": _("Keeping has to wait"),
    "keptAgain_title": _("All is kept again"),
    "fellBehind_title": _("I could not keep up"),
    "conversationGone_title": _("This conversation was deleted"),
    "tooMany_title": _("You are in other conversations already"),
    "tooMany_text": _("End one of them, in another window or on another device, and try again."),
    "refused_title": _("This page can’t connect"),
    "refused_text": _("Open AVATAR at its own address and try again."),
    "replay_text": _("This recording can’t be played right now. Please try again in a moment."),
}

HISTORY_STRINGS: UiStrings = {
    **{key: SHARED_STRINGS[key] for key in ("play", "stopPlaying", "dismiss", "problem_title")},
    **{key: CALL_STRINGS[key] for key in ("replay_text", "expired_text")},
    "playAll": _("Play all"),
    "chosen": _("{count} chosen"),
    "saved": _("Saved"),
    "turnsAdded": _("{count} more turns are shown"),
    "untitled": _("Untitled"),
    "pin": _("Pin: keep for good"),
    "unpin": _("Unpin"),
    "pinned": _("This conversation is kept for good"),
    "unpinned": _("This conversation is no longer pinned"),
    "transferBegins": _("Gathering what was said…"),
    "transferred": _("{megabytes} MB have arrived"),
    "transferredByBrowser": _("Your browser is downloading it: about {megabytes} MB"),
    "forGood": _("For good"),
    "asSite": _("As long as this site keeps it: {days} days"),
    "days": _("{days} days"),
    # What the API did not say itself.
    "offline_text": _("You are offline. Nothing was changed; please try again when the network is back."),
    "unreachable_text": _("The server cannot be reached. Nothing was changed; please try again."),
    "gone_text": _("It may have been deleted. All other conversations are still there."),
}
