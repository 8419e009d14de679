"""What makes int8 models more accurate: functions from model to model, before quantize_model or after it."""

from quaver.recipes.bias import correct_bias
from quaver.recipes.clipping import clip_weights
from quaver.recipes.equalization import equalize
from quaver.recipes.fallback import fall_back
from quaver.recipes.outliers import OutlierLinear, keep_outliers
from quaver.recipes.smoothing import smooth_quant

__all__ = ["OutlierLinear", "clip_weights", "correct_bias", "equalize", "fall_back", "keep_outliers", "smooth_quant"]
