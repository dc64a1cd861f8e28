"""Registration of the model classes with Keras, so that `keras.models.load_model` knows them.

The classes are registered when their module is imported. Importing it with the package would load
TensorFlow for programs that only read logs, so it is imported together with Keras, whether Keras is
imported before or after this package.
"""

import importlib
import importlib.abc
import importlib.util
import sys

MODEL_MODULE = "keras_spectral.model"


def register_with_keras():
    """Register the model classes now if Keras is loaded, else as soon as it is."""
    if "keras" in sys.modules:
        importlib.import_module(MODEL_MODULE)
    else:
        sys.meta_path.insert(0, _KerasFinder())


class _KerasFinder(importlib.abc.MetaPathFinder):
    """Finds Keras by the other finders, and imports the model classes after it."""

    def find_spec(self, fullname, path, target=None):
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _LoaderWithModels(spec.loader)
        return spec


class _LoaderWithModels(importlib.abc.Loader):
    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        try:
            importlib.import_module(MODEL_MODULE)
        except ImportError:
            # A module of this package imports Keras; it imports the model classes itself.
            if not _package_is_being_imported():
                raise


def _package_is_being_imported():
    package = __name__.partition(".")[0] + "."
    modules = [module for name, module in sys.modules.items() if name.startswith(package)]
    return any(getattr(module.__spec__, "_initializing", False) for module in modules)
