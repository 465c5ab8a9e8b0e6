"""The papers' tables: every one is there, has its shape, agrees with itself, and a reader's spot checks hold."""

import pytest

from biolearn_lite.recipes import papers

SHAPES = {
    **{"001-1": (4, 9), "001-2": (4, 8), "001-3": (12, 12), "001-4": (4, 11), "001-5": (4, 11), "001-6": (12, 8)},
    **{"001-7": (16, 6), "001-8": (4, 7), "001-9": (6, 5), "001-10": (4, 7), "001-11": (6, 5)},
    **{"002-1": (11, 5), "002-2": (9, 4), "002-3": (2, 3), "002-4": (10, 4), "002-5": (7, 4), "002-6": (1, 5)},
    **{"003-2": (10, 2), "003-3": (5, 2), "003-4": (5, 3), "003-5": (8, 2), "003-6": (6, 3)},
    **{"004-1": (8, 12), "004-2": (5, 6), "004-3": (5, 9), "004-4": (5, 12), "004-5": (8, 12), "004-6": (8, 12)},
    **{"004-7": (5, 7), "004-8": (8, 7), "004-9": (8, 7), "004-10": (5, 8), "004-11": (8, 8), "004-12": (8, 8)},
    **{"004-13": (9, 7)},
}

SEEDS = {"001": "e9d75c74862a0644", "002": "88801e0bc4ca6844", "003": "64be1c4a253168f9", "004": "975dfcf8626c73d0"}

# (table, the row's cells to find it by, column, what is printed); chosen where the text is garbled or easy to mix up.
SPOTS = [
    ("001-1", {"data set": "MNIST"}, "pHSIC Gaussian: grp+div", "98.1"),
    ("001-1", {"data set": "Kuzushiji-MNIST"}, "last layer", "71.2"),
    ("001-2", {"network": "2x + SGD + divnorm"}, "layer class.: +FA", "81.2"),
    ("001-3", {"data set": "MNIST", "parameter": "eta_f"}, "backprop: div", "5e-3"),
    ("001-3", {"data set": "f-MNIST", "parameter": "eta_f"}, "pHSIC cossim: grp", "1e-3"),
    ("001-3", {"data set": "K-MNIST", "parameter": "eta_f"}, "pHSIC cossim: grp+div", "5e-4"),
    ("001-3", {"data set": "MNIST", "parameter": "eta_l"}, "pHSIC cossim", "0.5"),
    ("001-3", {"data set": "MNIST", "parameter": "eta_l"}, "backprop", ""),
    ("001-3", {"data set": "K-MNIST", "parameter": "c^k"}, "last layer: div", "16"),
    ("001-3", {"data set": "K-MNIST", "parameter": "c^k"}, "backprop: div", "32"),
    ("001-3", {"data set": "CIFAR10", "parameter": "eta_l"}, "pHSIC cossim: grp+div", "0.1"),
    ("001-3", {"data set": "CIFAR10", "parameter": "eta_l"}, "pHSIC Gaussian: grp", "0.6"),
    ("001-4", {"data set": "MNIST"}, "pHSIC Gaussian", "94.6"),
    ("001-4", {"data set": "MNIST"}, "pHSIC Gaussian: grp", "98.4"),
    ("001-4", {"data set": "K-MNIST"}, "pHSIC cossim: grp+div", "87.2"),
    ("001-4", {"data set": "CIFAR10"}, "pHSIC cossim: grp", "52.5"),
    ("001-4", {"data set": "CIFAR10"}, "pHSIC Gaussian: grp", "48.4"),
    ("001-4", {"data set": "CIFAR10"}, "last layer: div", "38.0"),
    ("001-5", {"data set": "CIFAR10"}, "pHSIC cossim: grp", "2.0"),
    ("001-5", {"data set": "MNIST"}, "pHSIC cossim", "1.4"),
    ("001-6", {"network": "1x wide net + SGD", "parameter": "eta_f"}, "pHSIC Gaussian: grp", ""),
    ("001-6", {"network": "1x wide net + SGD", "parameter": "eta_f"}, "pHSIC Gaussian: grp+div", "1e-4"),
    ("001-6", {"network": "2x wide net + AdamW + batchnorm", "parameter": "c^k"}, "pHSIC cossim: grp", "128"),
    ("001-7", {"network": "2x wide net + SGD + divnorm", "parameter": "c^k"}, "layer class.", "64"),
    ("001-7", {"network": "1x wide net + SGD + divnorm", "parameter": "batch manhattan"}, "sign sym.", "+"),
    ("001-8", {"network": "1x wide net + AdamW + batchnorm"}, "pHSIC Gaussian: grp", "89.9"),
    ("001-8", {"network": "1x wide net + SGD"}, "pHSIC Gaussian: grp", ""),
    ("001-9", {"network": "2x wide net + SGD"}, "layer class.", "90.3"),
    ("001-9", {"network": "2x wide net + SGD"}, "FA", ""),
    ("001-10", {"network": "2x wide net + SGD"}, "pHSIC cossim: grp", "2.4"),
    ("001-11", {"network": "1x wide net + SGD + divnorm"}, "sign sym.", "5.5*"),
    ("002-1", {"Loss": "Contr. Hinge", "Learning": "E2E", "Update": "DTP"}, "+Grad. block and 5 negatives", "67.74%"),
    ("002-1", {"Loss": "Rnd. encoder"}, "Acc.", "61.23%"),
    ("002-2", {"Loss": "Contr. Hinge", "Learning": "GLL", "Update": "BP/URF"}, "Acc.", "68.26% / 68.80%"),
    ("002-2", {"Loss": "Rnd. encoder"}, "Acc.", "46.78%"),
    ("002-3", {"Size of training data": "5000"}, "Supervised", "43.27%"),
    ("002-4", {"Loss": "Supervised"}, "Acc. on transformed digits", "75.6%"),
    ("002-5", {"Learning": "RLL", "Update": "RF"}, "Classifier acc.", "66.39%"),
    ("002-6", {"Head Size": ""}, "2048", "70.20%"),
    ("003-2", {"# of trainable layer": "5"}, "layer type", "3×3 conv1024, ReLU"),
    ("003-3", {"# of modules": "4"}, "layer distribution", "(1,2,3),(4),(5),(6) or (1),(2),(3),(4,5,6)"),
    ("003-4", {"": "GIM (3 modules)"}, "VGG-6", "78.3"),
    ("003-5", {"# of trainable layer": "4"}, "layer type", "3×3×3 conv512, BN, ReLU"),
    ("003-6", {"# layers per module": "3,1,1,1"}, "Test accuracy (%)", "75.4"),
    ("004-1", {"Connectivity": "LC - ws(1)"}, "TinyImageNet: Diff", "3.0"),
    ("004-2", {"Connectivity": "LC", "Weight sharing frequency": "10"}, "ImageNet: Top-1 accuracy (%)", "59.3"),
    ("004-3", {"Connectivity": "LC", "Weight sharing frequency": "1"}, "Brain-Score: behavior", ".255"),
    ("004-4", {"Connectivity": "LC"}, "CIFAR10: Diff", "-16.8"),
    ("004-6", {"Connectivity": "LC - 16 reps"}, "CIFAR100: Diff of top-5", "-7.0"),
    ("004-7", {"Connectivity": "LC - ws(10)"}, "TinyImageNet: Top-5 accuracy (%)", "2.1"),
    ("004-8", {"Connectivity": "LC - 8 reps"}, "CIFAR100: Top-1 accuracy (%)", "1.4"),
    ("004-9", {"Connectivity": "conv"}, "TinyImageNet: Top-1 accuracy (%)", "1.7"),
    ("004-10", {"Connectivity": "LC - ws(100)"}, "TinyImageNet: Learning rate", "0.001"),
    ("004-11", {"Connectivity": "LC - 8 reps"}, "CIFAR100: Weight decay", "0.0001"),
    ("004-12", {"Connectivity": "LC - 16 reps"}, "CIFAR10: Weight decay", "0.0001"),
    (
        "004-13",
        {"Model": "0.5x ResNet18 (1st layer conv)", "Weight sharing frequency": "100"},
        "ImageNet: Diff",
        "-4.4",
    ),
]


def find(name, where):
    return [line for line in papers.table(name) if where.items() <= line.items()]


def test_all_tables_are_there():
    assert papers.names() == list(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_shape_and_source(name):
    rows = papers.table(name)
    assert (len(rows), len(rows[0])) == SHAPES[name]
    paper, number = name.split("-")
    assert f"Table {number}: " in papers.notes(name)
    assert f"Seed: {paper}_{SEEDS[paper]}.txt" in papers.notes(name)
    assert all(cell == cell.strip() for row in rows for cell in row.values())


@pytest.mark.parametrize(("name", "where", "column", "printed"), SPOTS)
def test_spot_values(name, where, column, printed):
    line, *_ = find(name, where)
    assert line[column] == printed


@pytest.mark.parametrize("name", SHAPES)
def test_an_empty_cell_is_explained(name):
    if any(cell == "" for row in papers.table(name) for cell in row.values()):
        assert any(word in papers.notes(name) for word in ("empty in print", "lost the empty cells", "across"))


def test_tables_that_repeat_others_agree_with_them():
    for line, same in zip(papers.table("001-1"), papers.table("001-4"), strict=True):
        assert all(same[key] == cell for key, cell in line.items() if key != "data set")
    kinds = ("grp+div", "grp+div", "grp", "grp")
    for line, same, kind in zip(papers.table("001-2"), papers.table("001-8"), kinds, strict=True):
        assert line["pHSIC + grouping: cossim"] == same[f"pHSIC cossim: {kind}"]
        assert line["pHSIC + grouping: Gaussian"] == same[f"pHSIC Gaussian: {kind}"]
    for line, same in zip(papers.table("001-2"), papers.table("001-9")[2:], strict=True):
        for column in ("FA", "sign sym.", "layer class.", "layer class.: +FA"):
            assert line[column] == same[column]
    assert papers.table("004-1") == papers.table("004-5")
    for line, other in zip(papers.table("004-2"), papers.table("004-13"), strict=False):
        assert line.items() <= other.items()


@pytest.mark.parametrize("name", ["004-1", "004-4", "004-6", "004-13", "004-2"])
def test_differences_are_differences(name):
    """Each Diff is accuracy minus the convolutional network's, to the rounding of three printed numbers."""
    rows = papers.table(name)
    pairs = [(a, b) for a, b in zip(rows[0], list(rows[0])[1:], strict=False) if ": Diff" in b]
    assert pairs
    for line in rows[1:]:
        for accuracy, difference in pairs:
            expected = float(line[accuracy]) - float(rows[0][accuracy])
            assert float(line[difference]) == pytest.approx(expected, abs=0.151), (line, accuracy)


def test_accuracies_are_accuracies():
    for name in ("001-1", "001-2", "001-4", "001-8", "001-9"):
        for line in papers.table(name):
            values = [float(cell) for cell in list(line.values())[1:] if cell]
            assert all(35 < value < 99 for value in values)
    for name in ("001-5", "001-10"):
        assert all(0 < float(cell) < 3 for line in papers.table(name) for cell in list(line.values())[1:] if cell)


def test_number():
    assert papers.number("001-4", "CIFAR10", "backprop: div") == 60.3
    assert papers.number("001-8", "1x wide net + SGD", "pHSIC Gaussian: grp") is None
    assert papers.number("002-3", "50000", "Supervised") == 53.83
    with pytest.raises(ValueError, match="no row 'SVHN'"):
        papers.number("001-4", "SVHN", "backprop")
    with pytest.raises(ValueError, match="no row 'MNIST' with a column 'SVM'"):
        papers.number("001-4", "MNIST", "SVM")
    with pytest.raises(ValueError, match=r"no table '005-1': there are 001-1, .*004-13"):
        papers.table("005-1")
