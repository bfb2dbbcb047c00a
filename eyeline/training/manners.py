"""How clients ask: with which system prompt, and with the text before or after the image."""

from dataclasses import dataclass, replace
from random import Random

from eyeline.training.visual_tokens import SAID


@dataclass(frozen=True, slots=True)
class Manner:
    """How a client asks: with which system prompt, and with the text before or after the image."""

    system: str = ""
    text_first: bool = False


PLAIN = Manner()
HELPFUL = "You are a helpful assistant."
ROLES = (
    "You are a careful assistant.", "You are an assistant that reads pictures.", "You look at images and answer questions.",
    "You are an AI model.", "You are a helpful vision assistant.", "I am a student and you help me.",
    "You are an expert in charts and tables.", "This is a conversation between a user and an assistant.",
    "You are Mini, a small model that thinks.", "Act as a teacher.",
)  # fmt: skip
MANNERS = (
    "Answer the question.", "Look at the picture with care.", "Think before you answer.", "Give a short answer.",
    "Be brief and exact.", "Answer with what the image shows.", "Think step by step.", "Always read the image first.",
    "Reply in English.", "Do not guess.", "The user sends one image.", "Today is Monday.", "Use the image, not what you know.",
    "First think, then answer.",
)  # fmt: skip
ASKS_TO_THINK = 0.85  # share of system prompts that ask for thinking, of a model that thinks only then


def some_manner(rng: Random, asks: str = "") -> Manner:
    """One of the ways in which clients ask: half of them with a system prompt, half with the text first.

    `asks`: what most system prompts end with, where the model thinks only if it is asked to.
    """
    manner = _some_manner(rng)
    if asks and rng.random() < ASKS_TO_THINK:
        said = manner.system or HELPFUL
        return replace(manner, system=f"{said} Answer the question in the following format:\n{asks}.")
    return manner


def _some_manner(rng: Random) -> Manner:
    text_first = rng.random() < 0.5
    kind = rng.random()
    if kind < 0.5:
        return Manner("", text_first)
    if kind < 0.7:
        return Manner(HELPFUL, text_first)
    sentences = [rng.choice((HELPFUL, *ROLES))] if rng.random() < 0.7 else []
    sentences += rng.sample(MANNERS, rng.randint(0 if sentences else 1, 3))
    if rng.random() < 0.15:
        sentences.append(" ".join(rng.choice(SAID) for _ in range(rng.randint(3, 10))))
    return Manner(rng.choice((" ", " ", "\n")).join(sentences), text_first)
