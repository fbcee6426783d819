"""Restarts a reply, once, that begins in the wrong language. Imports no Django, no gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from inference.interfaces import GenerationEvent, GenerationOptions, LanguageModel, Message, TextDelta
from realtime.call.prompt import Language, ask_again, judge_beginning


async def generate_in(
    language: Language | None, llm: LanguageModel, messages: Sequence[Message], options: GenerationOptions
) -> AsyncGenerator[GenerationEvent, None]:
    """
    Yield a reply as `llm` generates it, holding back its first words until their language is clear.

    A beginning in the wrong language never comes out: the model is asked again, with the language named last. What it
    says then is taken as it is.
    """
    held: list[GenerationEvent] = []
    said = ""
    is_right = language is None
    async with aclosing(llm.generate(messages, options)) as events:
        async for event in events:
            if is_right:
                yield event
                continue
            held.append(event)
            if isinstance(event, TextDelta):
                said += event.text
            is_wanted = judge_beginning(said, language)
            if is_wanted is False:
                break
            if is_wanted is True:
                is_right = True
                for each in held:
                    yield each
        else:
            if not is_right:  # over before it was clear, such as "OK." or a number
                for each in held:
                    yield each
            return
    assert language is not None  # noqa: S101 — for the type checker: nothing is wrong where nothing is wanted
    async with aclosing(llm.generate(ask_again(messages, language), options)) as events:
        async for event in events:
            yield event
