"""Membership of examples in groups, from labels, columns or masks, and its permutations.

Letters: `n` example, `g` group. `ALL` is always recorded beside the groups and is not a column.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from keras_spectral.errors import GroupsError

ALL = "all"
MAX_GROUPS = 512


@dataclass(frozen=True, eq=False)
class Membership:
    """Which example belongs to which group.

    Attributes:
        names: Group labels as text, one per column of `mask`.
        mask: Boolean array `[n, g]`. Groups may overlap, and an example may be in none.
        permutation: Integer array `[g]`: 0 for a real group, `r >= 1` for the group that replaces
            it in the `r`-th permutation.
        permuted_within_strata: Whether labels were permuted within strata only.
    """

    names: tuple[str, ...]
    mask: np.ndarray
    permutation: np.ndarray = field(default=None)  # type: ignore[assignment]
    permuted_within_strata: bool = False

    def __post_init__(self):
        if self.permutation is None:
            object.__setattr__(self, "permutation", np.zeros(len(self.names), dtype=np.int32))
        if len(self.names) > MAX_GROUPS:
            raise GroupsError(
                f"`groups` must make at most {MAX_GROUPS} groups. Received: {len(self.names)}, "
                f"the first being {list(self.names[:5])}. Try fewer permutations, or bins for a "
                "numeric column: `pd.cut(age, 3)`."
            )
        if ALL in self.names:
            raise GroupsError(
                f"`groups` must not use the label {ALL!r}: it names the whole batch, which is "
                "always recorded. Try another label."
            )
        columns = Counter(zip(self.names, self.permutation.tolist(), strict=True))
        repeated = [name for (name, _), times in columns.items() if times > 1]
        if repeated:
            raise GroupsError(
                "`groups` must make groups with unique names. "
                f"Received: {repeated[0]!r} more than once. Try other column names."
            )

    def __len__(self):
        return len(self.mask)

    def __getitem__(self, rows):
        """Return the membership of some of the examples, with the same groups."""
        return dataclasses.replace(self, mask=self.mask[rows])

    @cached_property
    def shares(self):
        """Tuple with the share of each group among all examples."""
        return tuple(self.mask.mean(axis=0).tolist()) if len(self) else (0.0,) * len(self.names)

    @property
    def real_names(self):
        """Labels of the real groups, in column order."""
        return tuple(np.asarray(self.names, dtype=object)[self.permutation == 0])

    @property
    def n_permutations(self):
        """Number of permutations among the columns."""
        return int(self.permutation.max(initial=0))

    @classmethod
    def of(cls, groups, n=None):
        """Return the membership that `fit(groups=…)` describes.

        Args:
            groups: One of: `None` (no groups); a vector of `n` labels; a mapping or DataFrame of
                label columns (several factors, groups named `column=label`); a boolean array
                `[n, g]` or a DataFrame of booleans (overlapping masks, groups named by column); a
                `Membership`. Missing labels (NaN, None, "") belong to no group.
            n: Number of examples, checked when given.

        Returns:
            A `Membership` of `n` rows, groups in sorted order within each factor.

        Raises:
            GroupsError: If there is not one label per example, or `groups` is none of the above.

        Example:
            >>> Membership.of(["SZ", "HC", None, "SZ"]).names
            ('HC', 'SZ')
        """
        membership = cls._parse(groups, n)
        if n is not None and len(membership) != n:
            raise GroupsError(
                "`groups` must have one label per example. "
                f"Received: {len(membership)} labels for {n} examples. "
                "Try the labels of just the rows you pass as `x`, in the same order."
            )
        return membership

    @classmethod
    def _parse(cls, groups, n):
        if groups is None:
            return cls((), np.zeros((n or 0, 0), dtype=bool))
        if isinstance(groups, Membership):
            return groups
        if isinstance(groups, pd.DataFrame | Mapping):
            return cls._from_columns(_columns(groups))
        if hasattr(groups, "numpy"):
            groups = groups.numpy()
        values = np.asarray(groups)
        if values.ndim == 2 and values.dtype == bool:
            return cls(tuple(str(j) for j in range(values.shape[1])), values)
        if values.ndim == 1:
            return cls._from_labels(pd.Series(groups, copy=False).reset_index(drop=True))
        raise GroupsError(
            "`groups` must be a vector of labels, a table of label columns, or a boolean array of "
            f"shape (examples, groups). Received: shape={values.shape}, dtype={values.dtype}. "
            "Try a DataFrame with one column per factor."
        )

    @classmethod
    def _from_columns(cls, columns):
        if all(pd.api.types.is_bool_dtype(column) for _, column in columns):
            masks = [column.fillna(False).to_numpy(dtype=bool) for _, column in columns]
            return cls(tuple(name for name, _ in columns), np.stack(masks, axis=1))
        factors = [cls._from_labels(column, f"{name}=") for name, column in columns]
        names = tuple(name for factor in factors for name in factor.names)
        return cls(names, np.concatenate([factor.mask for factor in factors], axis=1))

    @classmethod
    def _from_labels(cls, labels, prefix=""):
        codes, texts = _coded(labels)
        names = sorted({text for text in texts if text})
        column = {name: number for number, name in enumerate(names)}
        columns = np.array([column.get(text, -1) for text in texts], dtype=int)[codes]
        return cls(
            tuple(prefix + name for name in names), columns[:, None] == np.arange(len(names))
        )


def _columns(table):
    columns = [
        (_as_text(name), pd.Series(values).reset_index(drop=True)) for name, values in table.items()
    ]
    lengths = {name: len(column) for name, column in columns}
    if not columns or len(set(lengths.values())) != 1:
        raise GroupsError(
            f"`groups` must have columns of equal length. Received: lengths={lengths}."
        )
    return columns


def _coded(labels):
    """Return codes `[n]` and the text of each code; there are far fewer codes than examples."""
    if labels.dtype != object:
        codes, different = pd.factorize(labels, use_na_sentinel=False)
        return codes, [_as_text(label) for label in different]
    # 1, 1.0 and True are equal, their texts are not.
    known = {}
    codes = [
        known.setdefault(
            (type(label), repr(label) if isinstance(label, list | dict | set) else label),
            len(known),
        )
        for label in labels
    ]
    return np.array(codes, dtype=int), [_as_text(label) for _, label in known]


def _as_text(label):
    if label is None or (np.ndim(label) == 0 and pd.isna(label)):
        return ""
    if isinstance(label, bytes):
        label = label.decode()
    if isinstance(label, float | np.floating) and float(label).is_integer():
        label = int(label)
    return " ".join(str(label).splitlines()).strip()
