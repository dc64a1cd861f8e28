"""Simulated subjects with planted differences, for every kind of data that `neuro` reads.

Each simulator returns values and a phenotype; a function `write_…` writes them to files that the
loaders read. The docstring of each module states the planted differences and their sizes:

| simulator | its loader | SZ differ from HC by | the group (site B, or sex M) differs by |
| --- | --- | --- | --- |
| `simulated_fnc` | `load_tables` | the mean of one mode | wider scores in three modes |
| `simulated_freesurfer` | `load_tables` | the mean of one mode | wider scores in five modes |
| `simulated_time_series` | `load_time_series` | amplitude of a network | that of three others |
| `simulated_volumes` | `load_volumes` | darker ventricles | wider scores in 16 fields |

`effect` is the distance between diagnoses in standard deviations between subjects, `group_effect`
the relative increase of the standard deviation in the group. Both differences are in the activation
of the first layer, in directions that are orthogonal to each other. With `group_effect=0` the
values do not depend on sex or site at all.
"""

from keras_spectral.neuro.simulate.connectivity import (
    DIAGNOSIS_MODE,
    GROUP_MODES,
    MODE_SD,
    NETWORK_MODES,
    NOISE_SD,
    simulated_fnc,
    simulated_modes,
    write_simulated_tables,
)
from keras_spectral.neuro.simulate.freesurfer import (
    simulated_freesurfer,
    simulated_region_modes,
    simulated_regions,
    write_simulated_freesurfer,
)
from keras_spectral.neuro.simulate.phenotype import FACTORS
from keras_spectral.neuro.simulate.time_series import (
    simulated_networks,
    simulated_time_series,
    write_simulated_time_series,
)
from keras_spectral.neuro.simulate.volumes import (
    simulated_fields,
    simulated_head,
    simulated_volumes,
    write_simulated_volumes,
)

__all__ = [
    "DIAGNOSIS_MODE",
    "FACTORS",
    "GROUP_MODES",
    "MODE_SD",
    "NETWORK_MODES",
    "NOISE_SD",
    "simulated_fields",
    "simulated_fnc",
    "simulated_freesurfer",
    "simulated_head",
    "simulated_modes",
    "simulated_networks",
    "simulated_region_modes",
    "simulated_regions",
    "simulated_time_series",
    "simulated_volumes",
    "write_simulated_freesurfer",
    "write_simulated_tables",
    "write_simulated_time_series",
    "write_simulated_volumes",
]
