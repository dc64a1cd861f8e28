"""Train the small models in saved_models/ on simulated data, each from its settings.toml.

    python -m scripts.save_models [name ...]

Writes, beside the settings, `model.keras`, the log `spectra.csv` with its `spectra.json`, and
`MODEL_CARD.md`. Without names, all of them are made.
"""

import argparse
import hashlib
import os
import tempfile
import textwrap
import tomllib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import train_test_split

import keras_spectral as ks
from keras_spectral.neuro import models, simulate
from keras_spectral.neuro.tables import load_tables
from keras_spectral.neuro.time_series import load_time_series
from keras_spectral.neuro.volumes import load_volumes

FOLDER = Path(__file__).parents[1] / "saved_models"
KINDS = {
    "tables": (simulate.write_simulated_tables, load_tables),
    "time_series": (simulate.write_simulated_time_series, load_time_series),
    "volumes": (simulate.write_simulated_volumes, load_volumes),
}
"""How each kind of data is simulated, and read again."""
FILES = ("settings.toml", "model.keras", "spectra.csv", "spectra.json")

CARD = """\
# {title}

**Trained on simulated data.** It shows what this library saves and how to read it again; it knows
nothing of brains. Made by `python -m scripts.save_models {name}`, which writes this card too.

## Data

{n_subjects} simulated subjects, an array `{shape}`, by functions of `keras_spectral.neuro`:

```python
files = {writer}(folder, {arguments})
x, y, phenotype = {loader}(*files, "{target}")
```

{n_train} of them were trained on, {n_test} were held out. What is planted: {planted}

## Model and training

`neuro.models.{model}({options})`, {parameters:,} weights, told the {target}, never the
{groups}. Adam with learning rate {learning_rate}, {epochs} epochs in batches of {batch_size}; seed
{seed} for the split, the initial weights, dropout and batches.

| | area under the ROC curve | accuracy |
| --- | --- | --- |
| training subjects | {train_scores} |
| held out subjects | {test_scores} |

## Spectra

`spectra.csv` holds {n_spectra} spectra: what a `SpectralProbe` saw of the training subjects, all of
them and by {groups}, before steps {steps}, the last of them being the model as it is saved. Of each
spectrum the largest {top_k} singular values are kept.

```python
import keras
import keras_spectral as ks
model = keras.models.load_model("saved_models/{name}/model.keras")
log = ks.read_log("saved_models/{name}/spectra.csv")
```

`tests/test_saved_models.py` simulates the data again, looks at the loaded model with
`ks.introspect`, and compares with the last step of the log.

## Files

Made with {versions}.

| file | bytes | SHA-256 |
| --- | --- | --- |
{files}

## Limits

- Simulated data: scores say how large the planted difference is, and nothing about patients.
- {n_test} subjects were held out: their scores are rough.
- The log holds no permutations, so it does not say which differences are more than chance.
- Trained again on another machine or with other versions, the weights differ in their last digits,
  and so do the checksums.
{limits}"""


def settings_of(name):
    """Return the settings of a saved model.

    Args:
        name: Name of its folder.
    """
    settings = tomllib.loads((FOLDER / name / "settings.toml").read_text(encoding="utf-8"))
    return settings | {"planted": " ".join(settings["planted"].split())}


def subjects_of(settings):
    """Simulate the subjects of a saved model.

    Args:
        settings: See `settings_of`.

    Returns:
        The tuple `(x, y, phenotype, train, test)`: float32 array `[n, …]`, classes `[n]`, the
        table of the subjects, and the places of those that were trained on and held out.
    """
    data = settings["data"]
    write, load = KINDS[data["kind"]]
    with tempfile.TemporaryDirectory() as folder:
        x, y, phenotype = load(*write(folder, **data["simulated"]), data["target"])
        x = np.asarray(x.array() if hasattr(x, "array") else x, dtype="float32")
    train, test = train_test_split(
        np.arange(len(y)), test_size=data["test_share"], stratify=y, random_state=settings["seed"]
    )
    return x, y, phenotype, train, test


def look_settings(settings):
    """Return what an evaluation records: a `Spectra`.

    Args:
        settings: See `settings_of`.
    """
    return ks.Spectra(top_k=settings["spectra"]["top_k"])


def save(name):
    """Train a model and write its files.

    Args:
        name: Name of its folder.
    """
    settings = settings_of(name)
    keras.utils.set_random_seed(settings["seed"])
    x, y, phenotype, train, test = subjects_of(settings)
    training, folder = settings["training"], FOLDER / name
    model = ks.SpectralModel.from_model(_built(settings["model"], x[train], len(set(y))))
    optimizer = keras.optimizers.Adam(training["learning_rate"])
    model.compile(optimizer, "sparse_categorical_crossentropy", spectra=look_settings(settings))
    probe = ks.callbacks.SpectralProbe(
        x[train],
        y[train],
        groups=phenotype[settings["data"]["groups"]].iloc[train],
        every=settings["spectra"]["every_epochs"],
        spectra=look_settings(settings),
    )
    sizes = {key: training[key] for key in ("epochs", "batch_size")}
    model.fit(x[train], y[train], **sizes, callbacks=[probe], verbose=0)
    model.save(folder / "model.keras")
    provenance = probe.log.provenance
    provenance["simulated"] = settings["planted"]
    del provenance["platform"]  # of whoever made it, not of what is made
    probe.log.to_csv(folder / "spectra.csv")
    scores = {
        "train_scores": scores_row(model, x[train], y[train]),
        "test_scores": scores_row(model, x[test], y[test]),
    }
    facts = {"shape": list(x.shape), "n_train": len(train), "n_test": len(test), **scores}
    card = _card(name, settings, model, probe.log, facts)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")


def scores_row(model, x, y):
    """Return how well a model tells two classes apart, as cells of the table in a card.

    Args:
        model: The model.
        x: Float32 array `[n, …]`.
        y: Classes `[n]`, 0 or 1.
    """
    probabilities = np.asarray(model(x, training=False))
    auc = roc_auc_score(y, probabilities[:, 1])
    accuracy = accuracy_score(y, probabilities.argmax(axis=1))
    return f"{auc:.2f} | {accuracy:.2f}"


def _built(settings, x, n_classes):
    kind, options = settings["kind"], settings["options"]
    if kind == "mlp":
        scale = x.mean(axis=0), x.var(axis=0)
        return models.mlp(x.shape[1], n_classes, standardize=scale, **options)
    if kind == "cnn3d":
        return models.cnn3d(x.shape[1:4], n_classes, **options)
    return getattr(models, kind)(*x.shape[1:], n_classes, **options)


def _card(name, settings, model, log, facts):
    data = settings["data"]
    write, load = KINDS[data["kind"]]
    versions = {**log.provenance["versions"], "Python": log.provenance["python"]}
    text = CARD.format(
        **facts,
        **settings["training"],
        name=name,
        title=settings["title"],
        seed=settings["seed"],
        n_subjects=data["simulated"]["n_subjects"],
        planted=settings["planted"],
        limits=_item(settings["limits"]) if "limits" in settings else "",
        writer=write.__name__,
        loader=load.__name__,
        arguments=_arguments(data["simulated"]),
        target=data["target"],
        groups=", ".join(data["groups"]),
        model=settings["model"]["kind"],
        options=_arguments(settings["model"]["options"]),
        parameters=sum(int(np.prod(w.shape)) for w in model.trainable_weights),
        n_spectra=len(log),
        steps=", ".join(map(str, log.steps)),
        top_k=settings["spectra"]["top_k"],
        versions=", ".join(f"{package} {version}" for package, version in versions.items()),
        files="\n".join(_row(FOLDER / name / file) for file in FILES),
    )
    return "\n\n".join(map(_wrapped, text.split("\n\n")))


def _wrapped(paragraph):
    """Break the lines of a paragraph of text anew, and leave headings, tables, code and lists."""
    if paragraph.startswith(("#", "|", "```", "- ")):
        return paragraph
    return textwrap.fill(paragraph, 100, break_long_words=False, break_on_hyphens=False)


def _item(text):
    return textwrap.fill(f"- {' '.join(text.split())}", 100, subsequent_indent="  ") + "\n"


def _arguments(options):
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def _row(path):
    content = path.read_bytes()
    return f"| {path.name} | {len(content)} | {hashlib.sha256(content).hexdigest()} |"


if __name__ == "__main__":
    names = sorted(path.parent.name for path in FOLDER.glob("*/settings.toml"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=names, help=f"any of {', '.join(names)}")
    for chosen in parser.parse_args().names:
        save(chosen)
