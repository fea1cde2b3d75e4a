"""The verbs: what each takes, checks at once, and hands to the packages below, which are imported when it runs."""

from __future__ import annotations

from collections.abc import Callable

from darklens.cli.verbs import data, results, system, training

VERBS: dict[str, Callable[..., None]] = {
    "demo": system.demo,
    "simulate": data.simulate,
    "preview": data.preview,
    "paint": data.paint,
    "look": data.look,
    "import": data.import_,
    "train": training.train,
    "adapt": training.adapt,
    "finetune": training.finetune,
    "ensemble": training.ensemble,
    "benchmark": training.benchmark,
    "evaluate": results.evaluate,
    "predict": results.predict,
    "find": results.find,
    "embed": results.embed,
    "superresolve": results.superresolve,
    "explain": results.explain,
    "report": results.report,
    "presets": data.presets,
    "recipes": training.recipes,
    "models": results.models,
    "doctor": system.doctor,
}
