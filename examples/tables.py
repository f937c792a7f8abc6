"""A table with a category and holes: from a data frame to a model in one file, and what it has learnt.

It needs the extras ``tabular`` and ``plot``, pandas, and no network.  The same on the command line,
if the table is a file:

    fastnn train diabetes.csv --target progression
    fastnn predict diabetes.safetensors new.csv --output predictions.csv
"""

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

from fastnn import tabular
from fastnn.plotting import write_figure
from fastnn.tabular import inspection


def main() -> None:
    """Train, and print what became of the columns, how good the model is, and which columns it relies on."""
    X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    X["sex"] = X["sex"].map({1: "a", 2: "b"})  # what they stand for is not told
    X.loc[::10, "bp"] = np.nan
    X_train, X_test, y_train, y_test = train_test_split(X, y.rename("progression"), random_state=0)

    model = tabular.TabularRegressor(n_members=4, random_state=0).fit(X_train, y_train)
    print(model.describe())
    print(f"\nR2 of {len(y_test)} other rows: {model.score(X_test, y_test):.2f}")
    importance = inspection.permutation_importance(model, X_test, y_test, random_state=0)
    print(f"\n{importance}")
    write_figure(importance.plot(), "importance.png")

    model.save("diabetes.safetensors")
    predictor = tabular.load("diabetes.safetensors").predictor()
    row = X_test.iloc[0].to_dict()
    print(f"\n{row}: {predictor.predict(row):.0f}")


if __name__ == "__main__":
    main()
