"""Which waiting images go next, and when."""

from yolastic_worker.batcher.batcher import Batcher, BatchRules, SecondsOf, Turn, Window

__all__ = ["BatchRules", "Batcher", "SecondsOf", "Turn", "Window"]
