"""Which of several correlated causes touch an effect directly: the PC algorithm of causal-learn on a table of looks.

It knows a table of zeros and ones, and that causes come before effects. It does not know what the columns mean.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST_ROWS = 30


def direct_causes(table: NDArray[np.int64], alpha: float = 0.01) -> set[int]:
    """Columns that stay adjacent to the last one when PC has conditioned on the others.

    Peter-Clark algorithm (Spirtes, Glymour and Scheines 2000, section 5.4.2) with the G-squared test, the effect in a
    later tier than its causes, and tests in order of columns, so that of two columns that say the same the later stays.

    Args:
        table: [rows, causes + 1], 0 or 1; the last column is the effect.
        alpha: significance below which a dependence is believed, from 0 to 1.

    Returns:
        Numbers of the columns; all of them if the table is too small or too uniform to tell.
    """
    causes = table.shape[1] - 1
    varies = [column for column in range(causes) if 0 < table[:, column].mean() < 1]
    if len(table) < _LEAST_ROWS or len(varies) < 2 or not 0 < table[:, -1].mean() < 1:
        return set(range(causes))
    pc, knowledge_class, node_class = _causal_learn()
    used = [*varies, causes]
    names = [f"X{column}" for column in used]
    knowledge = knowledge_class()
    for column, name in zip(used, names, strict=True):
        knowledge.add_node_to_tier(node_class(name), int(column == causes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pc(
            np.ascontiguousarray(table[:, used]), alpha, "gsq", stable=False,
            background_knowledge=knowledge, node_names=names, show_progress=False,
        )  # fmt: skip
    graph = np.asarray(found.G.graph)
    return {column for index, column in enumerate(varies) if graph[index, -1] != 0 or graph[-1, index] != 0}


def _causal_learn() -> tuple[Any, Any, Any]:
    """Loaded when first needed: it takes seconds, because it brings scikit-learn and matplotlib."""
    search = importlib.import_module("causallearn.search.ConstraintBased.PC")
    knowledge = importlib.import_module("causallearn.utils.PCUtils.BackgroundKnowledge")
    node = importlib.import_module("causallearn.graph.GraphNode")
    return search.pc, knowledge.BackgroundKnowledge, node.GraphNode
