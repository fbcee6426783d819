"""Strings of the interface that the voice pages and their scripts show, and sentences to read aloud."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from avatar_site.lib.ui_strings import SHARED_STRINGS, UiStrings

#: The text of a preview when the user has not written one, by the voice's language.
PREVIEW_SENTENCES = {
    "zh": "你好，這是我的聲音。今天想聊些什麼呢？",
    "en": "Hello, this is my voice. What shall we talk about today?",
}
#: What a person reads aloud for a recording, about 15 s, by the language they speak.
READ_ALOUD = {
    "zh": (
        "早安，今天的天氣真好，陽光照進窗戶，街上傳來腳踏車的鈴聲。我泡了一杯烏龍茶，翻開一本舊書，慢慢讀給你聽。"
        "有些故事很短，卻讓人記得很久。"
    ),
    "en": (
        "Good morning. The sun comes in through the window, and somewhere down the street a bicycle bell rings. "
        "I make a cup of tea, open an old book, and read to you slowly. Some stories are short, and still they stay "
        "with us for years."
    ),
}

#: A script fills in `{name}`.
VOICE_STRINGS: UiStrings = {
    **SHARED_STRINGS,
    # Listening.
    "listenTo": _("Listen to {name}"),
    "preparing": _("Preparing the sound…"),
    "playing": _("Playing. This is a synthetic voice."),
    "pressAgain": _("The sound is ready. Press play once more."),
    "cannotPlay": _("This sound can’t be played right now. Please try again in a moment."),
    "onlyFast": _("High quality is not available just now; this is the fast version."),
    # A voice.
    "zh": _("Mandarin"),
    "en": _("English"),
    "female": _("female"),
    "male": _("male"),
    "kind_matched": _("matched voice"),
    "kind_cloned": _("cloned voice"),
    "shared": _("shared"),
    "similarity": _("Similarity {number}"),
    "similarityFitted": _("Similarity {number}, fitted"),
    "optionsOf": _("More about {name}"),
    "use": _("Use this voice"),
    "useShort": _("Use"),
    "inUse": _("In use"),
    "nowUses": _("AVATAR now answers as “{name}”."),
    "nowAutomatic": _("AVATAR now chooses the voice by language."),
    "currentVoice": _("AVATAR answers as “{name}”"),
    "currentAutomatic": _("AVATAR chooses the voice by language"),
    "isPreparing": _("{name} is being made: {step}"),
    "isReady": _("{name} is ready."),
    "hasFailed": _("{name} could not be made."),
    "share": _("Share with everybody"),
    "unshare": _("Stop sharing"),
    "nowShared": _("Everybody here can now use {name}."),
    "nowPrivate": _("{name} is yours alone again."),
    "renamed": _("Saved."),
    "deleted": _("{name} has been deleted."),
    # How it is made.
    "state_pending": _("Waiting for its turn"),
    "state_extracting": _("Being made"),
    "state_ready": _("Ready"),
    "state_failed": _("Could not be made"),
    "state_disabled": _("Switched off by an operator"),
    "state_deleting": _("Being deleted; its files cannot be reached yet"),
    "step_queued": _("Waiting for its turn"),
    "step_recognising": _("Listening to what was said"),
    "step_embedding": _("Learning the sound of the voice"),
    "step_clip": _("Choosing the best part"),
    "step_matching": _("Finding the nearest voice"),
    "failedUnknown": _("Something went wrong while the voice was being made. The recording is kept; please try again."),
    # Fitting.
    "fit": _("Make it sound closer"),
    "fitAgain": _("Try to get closer again"),
    "fitQueued": _("Waiting for a quiet moment"),
    "fitRunning": _("Getting closer"),
    "fitDone": _("It sounds closer now: {number}, from {before}."),
    "fitNothing": _("No closer version was found. The voice stays as it is."),
    "fitFailed": _("That did not work. The voice stays as it is; you can try again."),
    "fitCancelled": _("Stopped. The voice stays as it is."),
    # Recordings.
    "secondsOfSpeech": _("{seconds} s of speech"),
    "recordedOn": _("Recording of {date}"),
    "quietRoom": _("quiet surroundings"),
    "someNoise": _("some background noise"),
    "muchNoise": _("much background noise"),
    "nothingUnderstood": _("No words were understood."),
    "recordingDeleted": _("The recording has been deleted. The voice is being rebuilt."),
    "recordingAdded": _("The recording has been added. The voice is being rebuilt."),
    "warning_noisy": _("There is noise in the background. In a quieter place the voice becomes more similar."),
    "warning_clipped": _("Some of it is too loud and distorted. Speak a little farther from the microphone."),
    "warning_several_speakers": _("More than one person seems to speak. Only one voice should be heard."),
    "warning_short": _("There is little speech in it. Fifteen seconds or more make the voice more similar."),
    "warning_no_transcript": _("No words were understood in it. Please speak clearly, one sentence after the other."),
    "warning_language_differs": _("It seems to be in another language than you have chosen."),
    # Recording and sending.
    "record": _("Record"),
    "stopRecording": _("Stop recording"),
    "recordingStarted": _("Recording. Please read the text aloud."),
    "recordingDone": _("Recorded: {seconds} s. Listen to it, then send it or record again."),
    "recordingTooShort": _("That was only {seconds} s. Please speak for at least {shortest} s; fifteen are better."),
    "recordingAtEnd": _("That is the longest a recording can be. It has been stopped and kept."),
    "recordingFile": _("Recording, {seconds} s"),
    "fileTooLarge": _("“{name}” has {size}. At most {most} are possible; a shorter part of it is enough."),
    "fileEmpty": _("“{name}” is empty. Please choose another file."),
    "tooManyFiles": _("Please choose one file at a time."),
    "nameMissing": _("Please give the voice a name."),
    "uploading": _("{sent} of {total} sent"),
    "uploaded": _("Everything has arrived. The recording is being checked…"),
    "cancelled_title": _("Sending was stopped"),
    "cancelled_text": _("Stopped. Nothing has been kept on the server; your recording is still here."),
    "untitled": _("My voice"),
    "consentTitle_own_voice": _("This is my own voice"),
    "consentTitle_permission": _("I have the person’s permission"),
    # What went wrong: what happened, that nothing was lost, what to do.
    "recordAgain": _("Record again"),
    "chooseFile": _("Choose a file"),
    "anotherOne": _("Another one"),
    "allVoices": _("All voices"),
    "offline_text": _("Nothing is lost. Connect to the network again and try once more."),
    "unreachable_title": _("The server can’t be reached"),
    "unreachable_text": _("Nothing is lost. Please try again in a moment."),
    "expired_text": _("Your login has expired. What you have saved is kept."),
    "gone_title": _("This voice is gone"),
    "gone_text": _("It may have been deleted. All others are still there."),
    "refused_title": _("This recording can’t be used"),
    "denied_text": _(
        "Your browser does not let this page hear you. Open the site settings beside the address, allow the microphone "
        "and try again. You can also choose a file."
    ),
    "missing_text": _("Connect a microphone or a headset and try again. You can also choose a file."),
    "taken_text": _("Another program is using the microphone. Close it and try again. You can also choose a file."),
    "lost_text": _("It was unplugged or switched off. Connect it and record again, or choose a file."),
    "insecure_text": _("Browsers only allow the microphone over https. Open this page with https, or choose a file."),
    "unsupported_title": _("This browser can’t record"),
    "unsupported_text": _("Please use a recent Chrome, Edge, Firefox or Safari. You can also choose a file."),
}
