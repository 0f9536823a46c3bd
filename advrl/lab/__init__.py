"""The variance laboratory: gradient estimators compared, on problems with known answers and inside running GANs."""

from advrl.lab.compare import compare
from advrl.lab.discrete import Bits, Choice, Tucker
from advrl.lab.figures import bias_variance_plot, histogram_plot, probe_plot, save_figures, variance_plot
from advrl.lab.gaussian import Cosine, Exponential, NormalSquare, Quadratic
from advrl.lab.models import BinaryVAE, LogisticRegression
from advrl.lab.moments import Moments
from advrl.lab.probe import GradientProbe
from advrl.lab.problem import Known, Problem
from advrl.lab.sequence import RewardToGo, Sequence
from advrl.lab.spectrum import SpectrumProbe, spectrum_plot
from advrl.lab.table import Row, Table

PROBLEMS: dict[str, type[Known]] = {
    cls.name: cls
    for cls in (
        NormalSquare,
        Quadratic,
        Cosine,
        Exponential,
        Tucker,
        Bits,
        Choice,
        Sequence,
        BinaryVAE,
        LogisticRegression,
    )
}
"""Problems with known answers, by their names on the command line."""

__all__ = [
    "PROBLEMS",
    "BinaryVAE",
    "Bits",
    "Choice",
    "Cosine",
    "Exponential",
    "GradientProbe",
    "Known",
    "LogisticRegression",
    "Moments",
    "NormalSquare",
    "Problem",
    "Quadratic",
    "RewardToGo",
    "Row",
    "Sequence",
    "SpectrumProbe",
    "Table",
    "Tucker",
    "bias_variance_plot",
    "compare",
    "histogram_plot",
    "probe_plot",
    "save_figures",
    "spectrum_plot",
    "variance_plot",
]
