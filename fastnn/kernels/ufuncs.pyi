import numpy as np

sum_of_scaled: np.ufunc
