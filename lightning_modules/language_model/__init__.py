"""Asking a language model: structured answers, checked, cached and paid for once. What it says is data."""

from lightning_modules.language_model.client import Client
from lightning_modules.language_model.cost import Estimate
from lightning_modules.language_model.errors import LanguageModelError
from lightning_modules.language_model.question import BadAnswer, Prompt, Question
from lightning_modules.language_model.text import clean, read_json

__all__ = ["BadAnswer", "Client", "Estimate", "LanguageModelError", "Prompt", "Question", "clean", "read_json"]
