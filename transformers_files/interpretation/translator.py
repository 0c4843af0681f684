"""Learned maps from one space of hidden states to another, and their files: the public names of `mapping`.

from transformers.interpretation.translator import TranslatorSettings, fit_translator, save_maps
"""

from __future__ import annotations

from .mapping.translator import Translator, TranslatorSettings, fit_translator, load_maps, save_maps

__all__ = ["Translator", "TranslatorSettings", "fit_translator", "load_maps", "save_maps"]
