"""The command line as a user meets it: what it does, and what it says when it cannot."""

import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console
from sklearn.model_selection import StratifiedKFold

import keras_spectral as ks
from keras_spectral import cli
from keras_spectral.cli import logs, progress, running
from keras_spectral.experiment.study import Plan

MLSP = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "mlsp2014_kaggle"
COMMANDS = ["run", "demo", "layers", "compare", "report"]
QUICK = ["--folds", 2, "--epochs", 1, "--permutations", 2]
N = 16


@pytest.fixture(autouse=True)
def fixed_seed():
    """Nothing: runs fix their own seeds, and clearing Keras takes longer than most tests here."""


def called(*arguments):
    """Run a command in this process. Whatever is not an error made for users is raised."""
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def done(*arguments):
    """Return what a command printed that must succeed."""
    result = called(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments):
    """Return the message of a command that must fail in our way of saying so."""
    result = called(*arguments)
    message = result.stderr.strip()
    assert result.exit_code == 1
    assert message.startswith("Error: ")
    assert "must" in message
    assert "Received: " in message
    return message


def assert_same_results(one, other):
    for name in ("scores.csv", "spectra.csv", "probe.csv", "comparison.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_tables():
    rng = np.random.default_rng(0)
    ids = [f"S{i:02d}" for i in range(N)]
    features = pd.DataFrame(rng.normal(size=(N, 4)), columns=list("abcd")).astype(object)
    labels = {
        "id": ids,
        "dx": np.resize(["HC", "SZ"], N),
        "sex": np.resize(["F", "F", "M", "M"], N),
        "site": np.resize(["A/B", "C:D", "C:D"], N),
        "same": "z",
        "empty": None,
        "some": np.resize(["u", None], N),
        "age": np.arange(N) + 20.5,
        "rare": ["k", "k", *["m"] * (N - 2)],
        "whole": np.resize(["all", "part"], N),
    }
    features.insert(0, "id", ids)
    return features, pd.DataFrame(labels)


def written(folder, features, labels):
    folder.mkdir(exist_ok=True)
    features.to_csv(folder / "x.csv", index=False)
    labels.to_csv(folder / "y.csv", index=False)
    return folder


@pytest.fixture
def tables(tmp_path):
    """A folder with good tables."""
    return written(tmp_path / "tables", *make_tables())


def run_command(tables, out, *more, target="dx", groups="sex", id_column="id"):
    features, labels = tables / "x.csv", tables / "y.csv"
    columns = ["--id", id_column, "--target", target, "--groups", groups]
    return ["run", "--features", features, "--labels", labels, *columns, "--out", out, *more]


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    """The folder of a small finished run by `run_command(tables, out, *QUICK)`."""
    folder = tmp_path_factory.mktemp("quick")
    tables = written(folder / "tables", *make_tables())
    done(*run_command(tables, folder / "run", *QUICK))
    return folder / "run"


@pytest.fixture(scope="module")
def real_run(tmp_path_factory):
    """Folder and output of a small run on the FNC and SBM data of the MLSP 2014 challenge."""
    if not MLSP.is_dir():
        pytest.skip(f"needs the MLSP 2014 data, which lie beside the checkout: {MLSP}")
    out = tmp_path_factory.mktemp("runs") / "fnc"
    arguments = ["--features", MLSP / "train_FNC.csv", "--features", MLSP / "train_SBM.csv"]
    arguments += ["--labels", MLSP / "train_labels.csv", "--id", "Id", "--target", "Class"]
    arguments += ["--groups", "Class", "--folds", 2, "--epochs", 2, "--permutations", 3]
    arguments += ["--every", 1]
    result = called("run", *arguments, "--out", out)
    assert result.exit_code == 0, result.output
    return out, result


class TestHelp:
    def test_importing_the_command_line_loads_neither_tensorflow_nor_keras(self):
        code = "import sys, keras_spectral.cli; print({'tensorflow', 'keras'} & set(sys.modules))"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert found.stdout.strip() == "set()"

    def test_without_arguments_it_shows_its_commands(self):
        output = called().output
        assert "See how each group of samples" in output
        assert all(f"\n  {command} " in output for command in COMMANDS)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_and_option_says_what_it_is_for(self, command):
        output = done(command, "--help")
        assert cli.main.commands[command].help.split(".")[0].split()[0] in output
        for option in cli.main.commands[command].params:
            if option.param_type_name == "option":
                assert option.help, f"{command} {option.name}"

    def test_version_is_that_of_the_package(self):
        assert ks.__version__ in done("--version")

    @pytest.mark.parametrize(
        "arguments",
        [["sprint"], ["run"], ["run", "--nope"], ["compare"], ["compare", "log"], ["layers"]],
    )
    def test_wrong_usage_is_explained(self, arguments):
        result = called(*arguments)
        assert result.exit_code == 2
        assert "Usage: " in result.stderr
        assert "--help" in result.stderr

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("--folds", 1),
            ("--folds", "two"),
            ("--seeds", 0),
            ("--epochs", 0),
            ("--batch-size", 0),
            ("--permutations", -1),
            ("--every", 0),
            ("--every", "often"),
            ("--probe-every", 0),
        ],
    )
    def test_impossible_numbers_are_refused_by_name_before_any_work(
        self, tables, tmp_path, option, value
    ):
        result = called(*run_command(tables, tmp_path / "run", option, value))
        assert result.exit_code == 2
        assert f"Invalid value for '{option}': " in result.stderr
        assert not (tmp_path / "run").exists()


class TestRunOnRealData:
    def test_leaves_every_file(self, real_run):
        out, _ = real_run
        names = ["scores.csv", "spectra.csv", "comparison.csv", "report.html", "run.json"]
        assert all((out / name).stat().st_size for name in names)
        assert len(list(out.glob("fold_*/model.keras"))) == 2
        assert len(list((out / "figures").glob("*.png"))) >= 5

    def test_scores_every_fold(self, real_run):
        scores = pd.read_csv(real_run[0] / "scores.csv")
        assert scores.columns.tolist() == ["fold", "seed", "auc", "accuracy"]
        assert scores[["fold", "seed"]].to_numpy().tolist() == [[0, 0], [1, 0]]
        assert scores[["auc", "accuracy"]].stack().between(0, 1).all()

    def test_records_both_groups_and_all_for_every_dense_layer_at_every_step(self, real_run):
        rows = ks.read_log(real_run[0] / "spectra.csv").to_dataframe()
        assert (rows["fold"].nunique(), rows["seed"].unique().tolist()) == (2, [0])
        steps = 2 * 2  # two epochs of 43 subjects in batches of 32
        counts = rows.groupby(["group", "layer", "quantity"]).size().unstack("group")
        assert counts.columns.tolist() == ["0", "1", "all"]
        assert len(counts) == 3 * 3
        assert set(counts.to_numpy().ravel()) == {2 * steps}

    def test_says_which_tables_it_joined_and_ends_with_where_the_report_is(self, real_run):
        out, result = real_run
        first, *_, last = result.stdout.strip().splitlines()
        assert "joined 86 subjects, 410 features; dropped nothing" in first
        assert last == f"Report: {out / 'report.html'}"

    def test_says_how_far_it_is_and_nothing_else_on_stderr(self, real_run):
        lines = real_run[1].stderr.strip().splitlines()
        assert [line.partition(", about")[0] for line in lines] == [
            "fold 1/2, seed 1/1, epoch 2/2",
            "fold 2/2, seed 1/1, epoch 2/2",
        ]

    def test_says_that_the_groups_are_the_target(self, real_run):
        out, result = real_run
        assert "training has seen the labels (0 and 1: the target)" in result.stdout
        assert "training has seen the labels" in (out / "report.html").read_text()
        null = pd.read_csv(out / "comparison.csv")["null"]
        assert null.str.contains("training has seen the labels").all()

    def test_saved_model_predicts_the_scored_values_from_raw_features_elsewhere(self, real_run):
        code = """
            import keras_spectral, keras, pandas as pd, sys
            from sklearn.metrics import roc_auc_score
            test = pd.read_csv(sys.argv[2], index_col=0)
            y = test.pop("target")
            model = keras.models.load_model(sys.argv[1])
            print(roc_auc_score(y, model.predict(test.to_numpy(), verbose=0)[:, 1]))
        """
        out, _ = real_run
        read = [pd.read_csv(MLSP / f"train_{name}.csv", index_col="Id") for name in ("FNC", "SBM")]
        y = pd.read_csv(MLSP / "train_labels.csv", index_col="Id")["Class"]
        x = pd.concat([*(table.loc[y.index] for table in read), y.rename("target")], axis=1)
        splits = StratifiedKFold(2, shuffle=True, random_state=0).split(x, y)
        x.iloc[next(splits)[1]].to_csv(out / "test_fold_0.csv")
        code = "\n".join(line.strip() for line in code.splitlines())
        found = subprocess.run(
            [
                sys.executable,
                "-c",
                code,
                out / "fold_0_seed_0/model.keras",
                out / "test_fold_0.csv",
            ],
            capture_output=True,
            text=True,
        )
        assert found.returncode == 0, found.stderr
        assert float(found.stdout) == pd.read_csv(out / "scores.csv")["auc"][0]


def test_on_a_terminal_a_bar_shows_the_progress_of_the_whole_run():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    plan = Plan(folds=2, epochs=2, permute_target=1)
    with progress.Progress(plan, console) as shown:
        shown(fold=1, seed=0, epoch=0, number=1)
    drawn = console.file.getvalue()
    assert "permuted target 1/1, fold 2/2, seed 1/1, epoch 1/2" in drawn
    assert "━" in drawn


def test_in_a_log_file_every_training_has_a_line_that_estimates_the_rest(capsys):
    clock = [0.0]
    console = Console(file=io.StringIO(), get_time=lambda: clock[0])
    with progress.Progress(Plan(folds=2, epochs=2), console) as shown:
        for fold, epoch in itertools.product(range(2), range(2)):
            clock[0] += 10.0
            shown(fold, seed=0, epoch=epoch, number=0)
    assert capsys.readouterr().err.splitlines() == [
        "fold 1/2, seed 1/1, epoch 2/2, about 0:00:20 left",
        "fold 2/2, seed 1/1, epoch 2/2, about 0:00:00 left",
    ]
    assert console.file.getvalue() == ""


class TestRun:
    @pytest.mark.slow
    def test_twice_gives_the_same_tables_byte_for_byte(self, quick_run, tmp_path, tables):
        done(*run_command(tables, tmp_path / "run", *QUICK))
        for name in ("scores.csv", "spectra.csv", "probe.csv", "comparison.csv"):
            assert (tmp_path / "run" / name).read_bytes() == (quick_run / name).read_bytes()

    def test_stopped_by_the_user_says_what_is_kept_and_goes_on_with_resume(
        self, quick_run, tmp_path, tables, monkeypatch
    ):
        def stopped(self, fold, seed, epoch, number):
            if fold == 1:
                raise KeyboardInterrupt

        command = run_command(tables, tmp_path / "run", *QUICK)
        with monkeypatch.context() as patch:
            patch.setattr(progress.Progress, "__call__", stopped)
            result = called(*command)
        assert result.exit_code == 1
        assert "1 of 2 folds are finished and kept in" in result.stderr
        assert "--resume" in result.stderr
        kept = everything(tmp_path / "run" / "fold_0_seed_0")
        assert kept
        assert "resume" in refused(*command)

        done(*command, "--resume")
        assert everything(tmp_path / "run" / "fold_0_seed_0") == kept
        for name in ("scores.csv", "spectra.csv", "probe.csv", "comparison.csv"):
            assert (tmp_path / "run" / name).read_bytes() == (quick_run / name).read_bytes()

    @pytest.mark.slow
    def test_stopped_by_a_signal_keeps_finished_folds(self, tmp_path, tables):
        command = run_command(tables, tmp_path / "run", *QUICK, "--epochs", 400)
        process = subprocess.Popen(
            [sys.executable, "-m", "keras_spectral.cli", *map(str, command)],
            stderr=subprocess.PIPE,
            text=True,
            # A shell that runs the tests in the background has all that they start ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while not (tmp_path / "run" / "fold_0_seed_0").exists() and process.poll() is None:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        _, message = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "1 of 2 folds are finished and kept" in message
        assert "Traceback" not in message
        assert (tmp_path / "run" / "fold_0_seed_0" / "model.keras").exists()
        done(*command, "--resume")
        assert (tmp_path / "run" / "report.html").exists()

    @pytest.mark.slow
    def test_killed_it_goes_on_to_the_same_bytes(self, tmp_path, tables):
        command = run_command(tables, tmp_path / "run", *QUICK, "--epochs", 40)
        process = subprocess.Popen(
            [sys.executable, "-m", "keras_spectral.cli", *map(str, command)],
            stderr=subprocess.DEVNULL,
        )
        while not (tmp_path / "run" / "fold_1_seed_0.part").exists() and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        done(*command, "--resume")
        done(*run_command(tables, tmp_path / "whole", *QUICK, "--epochs", 40))
        assert_same_results(tmp_path / "run", tmp_path / "whole")

    @pytest.mark.slow
    def test_a_dask_cluster_and_two_jobs_give_the_same_as_one_process(self, tmp_path, tables):
        distributed = pytest.importorskip("distributed")
        more = [*QUICK, "--permute-target", 2, "--groups", "dx"]
        done(*run_command(tables, tmp_path / "one", *more))
        done(*run_command(tables, tmp_path / "two", *more, "--jobs", 2))
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, dashboard_address=None
        ) as cluster:
            address = cluster.scheduler_address
            done(*run_command(tables, tmp_path / "dask", *more, "--cluster", address))
        assert_same_results(tmp_path / "one", tmp_path / "two")
        assert_same_results(tmp_path / "one", tmp_path / "dask")

    @pytest.mark.slow
    def test_a_cluster_without_workers_is_refused(self, tmp_path, tables):
        distributed = pytest.importorskip("distributed")
        with distributed.LocalCluster(
            n_workers=0, processes=False, dashboard_address=None
        ) as cluster:
            address = cluster.scheduler_address
            message = refused(*run_command(tables, tmp_path / "run", "--cluster", address))
        assert "dask worker" in message

    def test_a_folder_in_use_is_refused_before_data_are_read(self, tmp_path):
        (tmp_path / "mine.txt").write_text("mine")
        command = run_command(tmp_path / "nowhere", tmp_path)
        assert "`out` must be a new or empty folder" in refused(*command)
        assert "without its run.json" in refused(*command, "--overwrite")

    def test_strata_of_permutations_are_named_in_the_null(self, tmp_path, tables):
        out = tmp_path / "run"
        said = done(*run_command(tables, out, *QUICK, "--within", "dx", "--layers", "hidden*"))
        assert "2 permutations over subjects of the same dx, sizes kept" in said
        assert set(ks.read_log(out / "probe.csv").layers) == {"hidden_1", "hidden_2"}
        wrong = run_command(tables, tmp_path / "other", *QUICK, "--within", "dxx")
        assert "`within` must name a column" in refused(*wrong)

    def test_settings_beside_the_results_repeat_the_run(self, quick_run, tmp_path):
        done("run", "--settings", quick_run / "settings.toml", "--out", tmp_path / "again")
        assert_same_results(quick_run, tmp_path / "again")
        text = (quick_run / "settings.toml").read_text()
        assert 'every = "auto"' in text.splitlines()
        assert (tmp_path / "again" / "settings.toml").read_text() == text

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("folds = ", "must be a TOML file"),
            ("fold = 3", r"with fold. Try some of"),
            ('out = "x"', r"with out. Try some of"),
            (
                'labels = 3\nid = "i"\ntarget = "t"\ngroups = ["g"]\nfolds = "x"',
                "'x' is not a valid integer",
            ),
        ],
    )
    def test_wrong_settings_are_named(self, tmp_path, text, said):
        path = tmp_path / "settings.toml"
        path.write_text(text)
        result = called("run", "--settings", path, "--out", tmp_path / "run")
        assert result.exit_code == 2
        assert said in result.stderr
        assert not (tmp_path / "run").exists()

    def test_several_columns_of_groups_are_shown_pair_by_pair(self, tmp_path, tables):
        out = tmp_path / "run"
        command = run_command(tables, out, *QUICK, "--groups", "site", "--groups", "rare")
        lines = done(*command).splitlines()
        table = pd.read_csv(out / "comparison.csv")
        pairs = ["sex=F sex=M", "site=A/B site=C:D", "rare=k rare=m"]
        for pair, (_, rows) in zip(pairs, table.groupby("group_a", sort=False), strict=True):
            heading = next(i for i, line in enumerate(lines) if pair in " ".join(line.split()))
            best = rows.sort_values(["p_adjusted", "p"], kind="stable").iloc[0]
            shown = best["corrected_a"] if best["corrected_a"] > 0 else best["value_a"]
            words = lines[heading + 1].split()
            assert words[:3] == [best["layer"], best["quantity"], best["summary"]]
            assert float(words[3]) == pytest.approx(shown, rel=1e-3)
        rows = ks.read_log(out / "spectra.csv").to_dataframe()
        assert {"sex=F", "site=A/B", "rare=k", "all"} <= set(rows["group"])

    @pytest.mark.slow
    def test_a_single_group_is_not_compared_and_the_output_says_so(self, tmp_path, tables):
        output = done(*run_command(tables, tmp_path / "run", *QUICK, groups="same"))
        assert "Nothing was compared" in output
        assert (tmp_path / "run" / "report.html").exists()

    def test_groups_may_have_the_names_of_columns(self, tmp_path):
        features, labels = make_tables()
        labels["sex"] = np.resize(["p", "layer"], N)
        tables = written(tmp_path / "tables", features, labels)
        done(*run_command(tables, tmp_path / "run", *QUICK))

    def test_overwriting_replaces_the_run_and_keeps_what_is_the_users(
        self, quick_run, tmp_path, tables
    ):
        out = tmp_path / "run"
        shutil.copytree(quick_run, out)
        (out / "scores.csv").write_text("former")
        (out / "notes.txt").write_text("mine")
        done(*run_command(tables, out, *QUICK), "--overwrite")
        assert (out / "scores.csv").read_bytes() == (quick_run / "scores.csv").read_bytes()
        assert (out / "notes.txt").read_text() == "mine"


def bad_features(name):
    """Tables of which one is wrong, by name."""
    features, labels = make_tables()
    if name == "fewer":
        features = features.iloc[3:]
    elif name == "other":
        features["id"] = features["id"].str.lower()
    elif name == "twice":
        features = pd.concat([features, features.iloc[:2]])
    elif name == "text":
        features.loc[3, "c"] = "high"
    elif name == "nan":
        features.loc[3, "c"] = None
    elif name == "constant":
        features[["a", "b", "c", "d"]] = 1.0
    elif name == "few":
        labels["dx"] = ["SZ", *["HC"] * (N - 1)]
    elif name == "leak":
        features["dx"] = np.arange(N)
    return features, labels


class TestTablesThatCannotBeUsed:
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("fewer", ["3 ids (S00, S01, S02) not in x.csv", "13 in all tables", "Try "]),
            ("other", ["16 ids (S00, S01, S02, S03, S04 and 11 more) not in x.csv", "0 in all"]),
            ("twice", ["2 ids (S00, S01)", "Try one row per subject"]),
            ("text", ["c of id S03 is 'high'"]),
            ("nan", ["1 missing or infinite", "1 column (c) of 1 id (S03)"]),
            ("constant", ["Features must differ between subjects"]),
            ("few", ["folds=2, but 1 of 'SZ'"]),
            ("leak", ["it would be an input of the model"]),
        ],
    )
    def test_wrong_values_are_named_and_nothing_is_made(self, tmp_path, name, said):
        tables = written(tmp_path / "tables", *bad_features(name))
        message = refused(*run_command(tables, tmp_path / "run", *QUICK))
        assert all(part in message for part in said)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"id_column": "ID"}, ["'ID'", "Did you mean 'id'?"]),
            ({"target": "DX"}, ["`target`", "DX", "Did you mean 'dx'?"]),
            ({"target": "same"}, ["every label is 'z'"]),
            ({"target": "some"}, ["without one for 8 ids"]),
            ({"groups": "gender"}, ["`groups`", "gender", "the columns are dx, sex, site"]),
            ({"groups": "empty"}, ["empty, without any label"]),
            ({"groups": "whole"}, ["must not use the label 'all'"]),
        ],
    )
    def test_wrong_columns_are_named_and_nothing_is_made(self, tables, tmp_path, options, said):
        result = called(*run_command(tables, tmp_path / "run", *QUICK, **options))
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert all(part in result.stderr for part in said)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("name", ["x.csv", "y.csv"])
    def test_wrong_file_names_are_named(self, tables, tmp_path, name):
        (tables / name).unlink()
        assert name in refused(*run_command(tables, tmp_path / "run"))
        (tables / name).mkdir()
        assert name in refused(*run_command(tables, tmp_path / "run"))

    def test_constant_features_are_dropped_and_the_output_says_so(self, tmp_path, monkeypatch):
        features, labels = make_tables()
        features["c"] = 7.0
        tables = written(tmp_path / "tables", features, labels)
        monkeypatch.setattr(running, "train_and_report", lambda *_: None)
        output = done(*run_command(tables, tmp_path / "run"))
        assert "joined 16 subjects, 3 features; dropped 1 constant feature (c)" in output

    def test_ids_of_some_tables_only_can_be_left_out_by_request(self, tmp_path, monkeypatch):
        tables = written(tmp_path / "tables", *bad_features("fewer"))
        monkeypatch.setattr(running, "train_and_report", lambda *_: None)
        output = done(*run_command(tables, tmp_path / "run", "--inner-join"))
        assert "joined 13 subjects" in output
        assert "3 ids (S00, S01, S02) not in x.csv" in output

    def test_too_many_permutations_do_not_block_the_folder(self, tables, tmp_path):
        message = refused(*run_command(tables, tmp_path / "run", "--permutations", 999))
        assert "(`--permutations 255`)" in message
        assert not (tmp_path / "run").exists()


class TestOutputFolder:
    @pytest.mark.parametrize("options", [[], ["--resume"], ["--overwrite"]])
    def test_that_is_not_a_run_is_refused_and_left_as_it_is(self, tables, tmp_path, options):
        out = tmp_path / "mine"
        out.mkdir()
        (out / "spectra.csv").write_text("years of work")
        (out / "run.json").write_text('{"pace": "5:30 min/km"}')
        before = everything(tmp_path)
        assert "`out` must be" in refused(*run_command(tables, out, *options))
        assert everything(tmp_path) == before

    def test_with_a_run_asks_for_resume_or_overwrite(self, tables, quick_run):
        before = everything(quick_run)
        message = refused(*run_command(tables, quick_run, *QUICK))
        assert "--resume" in message
        assert "--overwrite" in message
        assert refused(*run_command(tables, quick_run, *QUICK, "--resume", "--overwrite"))
        assert everything(quick_run) == before

    def test_is_not_resumed_with_other_settings_or_data(self, tables, quick_run):
        before = everything(quick_run)
        command = run_command(tables, quick_run, *QUICK, "--resume")
        assert "differ: epochs." in refused(*command, "--epochs", 2)
        assert "differ: groups." in refused(*command, "--groups", "site")
        features, labels = make_tables()
        features.loc[5, "b"] += 0.001
        written(tables, features, labels)
        assert "differ: features." in refused(*command)
        assert everything(quick_run) == before

    @pytest.mark.parametrize("options", [[], ["--resume"], ["--overwrite"]])
    def test_that_cannot_be_written_is_refused(self, tables, tmp_path, options):
        file = tmp_path / "thesis.txt"
        file.write_text("mine")
        refused(*run_command(tables, file, *options))
        message = refused(*run_command(tables, file / "run", *options))
        assert "`out` must be a folder that can be written to" in message
        assert file.read_text() == "mine"


class TestDemo:
    def test_does_not_replace_a_run_on_real_data(self, quick_run):
        before = everything(quick_run)
        refused("demo", "--out", quick_run)
        assert everything(quick_run) == before

    @pytest.mark.slow
    def test_finds_what_was_planted_and_calls_it_simulated(self, tmp_path):
        for _ in range(2):  # the second replaces the first
            output = done("demo", "--out", tmp_path / "demo")
            assert output.startswith("Simulated data")
        assert json.loads((tmp_path / "demo/run.json").read_text())["simulated"].endswith(
            "site B vary more."
        )
        assert "Simulated data" in (tmp_path / "demo/report.html").read_text()
        assert pd.read_csv(tmp_path / "demo/comparison.csv")["p_adjusted"].min() <= 0.05


@pytest.fixture
def log(quick_run, tmp_path):
    """A copy of the training log of a run: no permutations."""
    return Path(shutil.copy(quick_run / "spectra.csv", tmp_path / "log.csv"))


class TestCompare:
    def test_takes_the_folder_of_a_run_or_of_a_fold_or_a_file(self, quick_run):
        for path in (quick_run, quick_run / "fold_1_seed_0", quick_run / "probe.csv"):
            assert "2 permutations over subjects" in done("compare", path, "F", "M")

    def test_agrees_with_the_comparison_of_the_run(self, quick_run, tmp_path):
        output = done("compare", quick_run, "F", "M", "--out", tmp_path / "all.csv", "--rows", 3)
        assert (tmp_path / "all.csv").read_bytes() == (quick_run / "comparison.csv").read_bytes()
        assert len([line for line in output.splitlines() if "hidden" in line]) <= 3

    def test_of_the_target_says_so_once_and_not_as_a_warning(self, real_run):
        result = called("compare", real_run[0], "0", "1")
        assert result.output.count("training has seen the labels") == 1
        assert result.stderr == ""

    def test_without_permutations_gives_differences_and_says_that_there_is_no_p(self, log):
        output = done("compare", log, "F", "M")
        assert "no p-value can be given" in output
        assert "NaN" in output

    def test_of_an_unknown_group_lists_the_groups(self, quick_run):
        assert "Try two of ['all', 'F', 'M']" in refused("compare", quick_run, "F", "X")
        assert "Try two of ['all', 'F', 'M']" in refused("compare", quick_run, "F", "F")

    def test_of_a_log_that_was_cut_off_says_where(self, log):
        log.write_bytes(log.read_bytes()[:-300])
        message = refused("compare", log, "F", "M")
        assert "its last line is cut off" in message
        assert str(log) in message

    def test_of_a_log_with_text_among_its_numbers_is_refused(self, log):
        lines = log.read_text().splitlines(keepends=True)
        cells = lines[3].split(",")
        cells[lines[0].split(",").index("sigma_1")] = "abc"
        log.write_text("".join([*lines[:3], ",".join(cells), *lines[4:]]))
        assert str(log) in refused("compare", log, "F", "M")

    def test_of_mixed_runs_is_refused(self, log):
        header, rows = log.read_text().split("\n", 1)
        log.write_text(f"{header}\n{rows}{rows}")
        assert "repeated rows" in refused("compare", log, "F", "M")

    @pytest.mark.parametrize("name", ["scores.csv", "comparison.csv", "report.html", "nothing.csv"])
    def test_of_another_file_is_refused_by_name(self, quick_run, name):
        assert name in refused("compare", quick_run / name, "F", "M")

    def test_of_an_interrupted_run_says_how_to_finish_it(self, quick_run, tmp_path):
        shutil.copy(quick_run / "run.json", tmp_path)
        assert "--resume" in refused("compare", tmp_path, "F", "M")

    def test_of_a_folder_without_a_run_is_refused(self, tables):
        assert str(tables) in refused("compare", tables, "F", "M")

    def test_never_replaces_the_log_by_the_comparison(self, log):
        before = log.read_bytes()
        assert "which it would replace" in refused("compare", log, "F", "M", "--out", log)
        assert log.read_bytes() == before

    def test_never_replaces_the_log_in_the_folder_of_a_run(self, quick_run):
        before = everything(quick_run)
        refused("compare", quick_run, "F", "M", "--out", quick_run / "probe.csv")
        refused("report", quick_run, "--out", quick_run / "probe.csv")
        assert everything(quick_run) == before

    def test_tells_warnings_in_one_line(self, monkeypatch):
        monkeypatch.setattr(logs, "_read", lambda _: warnings.warn("Look here.", stacklevel=1))
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            stderr = CliRunner().invoke(cli.main, ["compare", "log.csv", "F", "M"]).stderr
        assert stderr == "Warning: Look here.\n"

    def test_into_no_folder_is_an_error_without_traceback(self, log, tmp_path):
        result = called("compare", log, "F", "M", "--out", tmp_path / "nowhere" / "x.csv")
        assert result.exit_code == 1
        assert "nowhere" in result.stderr

    def test_shows_at_least_one_row(self, log):
        assert called("compare", log, "F", "M", "--rows", 0).exit_code == 2

    def test_ends_quietly_when_its_reader_has_seen_enough(self, log):
        command = [sys.executable, "-m", "keras_spectral.cli", "compare", str(log), "F", "M"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.close()  # type: ignore[union-attr]
        assert process.stderr.read() == b""  # type: ignore[union-attr]
        process.stderr.close()  # type: ignore[union-attr]
        process.wait(timeout=60)


class TestReport:
    def test_is_written_where_asked_with_figures(self, quick_run, tmp_path):
        out, figures = tmp_path / "r.html", tmp_path / "png"
        done("report", quick_run, "--out", out, "--figures", figures, "--a", "F", "--b", "M")
        assert out.read_text().startswith("<!DOCTYPE html>")
        assert list(figures.glob("*.png"))

    def test_into_a_folder_or_nowhere_is_refused_with_a_remedy(self, quick_run, tmp_path):
        message = refused("report", quick_run, "--out", tmp_path)
        assert f"{tmp_path / 'report.html'}" in message
        message = refused("report", quick_run, "--out", tmp_path / "nowhere" / "r.html")
        assert "mkdir -p" in message

    def test_of_wrong_groups_is_refused(self, quick_run, tmp_path):
        out = ["--out", tmp_path / "r.html"]
        assert "must be given together" in refused("report", quick_run, *out, "--a", "F")
        message = refused("report", quick_run, *out, "--a", "F", "--b", "X")
        assert "['all', 'F', 'M']" in message
        assert not (tmp_path / "r.html").exists()

    def test_never_replaces_the_log(self, log):
        before = log.read_bytes()
        assert "which it would replace" in refused("report", log, "--out", log)
        assert log.read_bytes() == before


def no_model(path, kind):
    """Write a file that is no model."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("letter.txt", "Dear reader")
    elif kind == "text":
        path.write_text("id,a\n1,2\n")
    elif kind == "folder":
        path.mkdir()
    return path


class Doubled(keras.layers.Dense):
    """A class that is registered nowhere."""


def doubled(x):
    """Return twice a tensor: a function that is registered nowhere."""
    return 2 * x


def model_with_own(kind):
    """Return a model with code of one's own."""
    layer = {
        "layer": lambda: Doubled(2),
        "activation": lambda: keras.layers.Dense(2, activation=doubled),
        "lambda": lambda: keras.layers.Lambda(lambda x: 2 * x),
    }[kind]()
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), layer])


class TestLayers:
    def test_of_a_saved_fold_lists_every_weight_and_how_it_is_captured(self, quick_run):
        lines = done("layers", quick_run / "fold_0_seed_0" / "model.keras").splitlines()
        layers = [line for line in lines if line.endswith("(Dense)")]
        assert layers == ["hidden_1 (Dense)", "hidden_2 (Dense)", "output (Dense)"]
        assert [line.split()[-1] for line in lines if "kernel" in line] == ["DenseRule"] * 3
        assert any(line.startswith("Captured: 3 of 6 weights") for line in lines)

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("x.keras", "missing"),
            ("x.keras", "text"),
            ("x.keras", "zip"),
            ("x.keras", "folder"),
            ("x.h5", "text"),
            ("x.csv", "text"),
            ("x", "folder"),
        ],
    )
    def test_of_what_is_no_model_is_refused_by_name(self, tmp_path, name, kind):
        message = refused("layers", no_model(tmp_path / name, kind))
        assert message.startswith("Error: `MODEL` must be a saved model.")
        assert str(tmp_path / name) in message
        assert len(message) < 1000

    @pytest.mark.parametrize(
        ("kind", "named", "tried"),
        [
            ("layer", "the class 'Doubled'", "in a script that imports or defines it first"),
            ("activation", "the function 'doubled'", "in a script that imports or defines it"),
            ("lambda", "a `Lambda` layer", "`safe_mode=False`"),
        ],
    )
    def test_of_code_that_keras_does_not_know_says_what_to_do(self, tmp_path, kind, named, tried):
        path = tmp_path / "own.keras"
        model_with_own(kind).save(path)
        message = refused("layers", path)
        assert f"Received: {path}, with {named}" in message
        assert f"ks.coverage(keras.models.load_model({str(path)!r}" in message
        assert tried in message

    def test_of_weights_alone_asks_for_the_model(self, tmp_path):
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(
            tmp_path / "of.weights.h5"
        )
        message = refused("layers", tmp_path / "of.weights.h5")
        assert "Try a `.keras` file, as `model.save('model.keras')` writes it." in message

    @pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
    def test_of_a_model_that_was_saved_before_it_was_built_asks_to_build_it(self, tmp_path):
        keras.Sequential([keras.layers.Dense(2)]).save(tmp_path / "early.keras")
        assert "must be built" in refused("layers", tmp_path / "early.keras")

    def test_of_a_model_that_was_cut_off_is_refused(self, quick_run, tmp_path):
        whole = (quick_run / "fold_0_seed_0" / "model.keras").read_bytes()
        (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
        assert "cut.keras" in refused("layers", tmp_path / "cut.keras")
