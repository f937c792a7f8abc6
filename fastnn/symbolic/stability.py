"""Stable forms: equal expressions that neither overflow nor lose digits.

They are those of Theano's optimiser: the sigmoid function and softmax as quotients, and the logarithms of sigmoid,
softmax, and sums of exponentials.
"""

from __future__ import annotations

from collections.abc import Collection

from fastnn.symbolic import ops
from fastnn.symbolic.graph import Constant, Op, Operand, Variable, apply, constant
from fastnn.symbolic.inplace import KERNEL_DTYPES

#: Operations that move the elements of their first input, or leave some out.
MOVES = (ops.Index, ops.Dimshuffle, ops.Reshape)

#: Limit of the depth of searches and comparisons in expressions.
DEEPEST = 12

#: Limit of the depth of products within products, each with two factors.
DEEPEST_PRODUCT = 6


class Forms:
    """Finds stable forms.

    Parameters
    ----------
    stops : collection of Variable
        Variables to leave as they are.
    for_gradient : bool, default False
        Whether the result needs only the gradient of the expression, not its value.
    """

    def __init__(self, stops: Collection[Variable] = (), for_gradient: bool = False) -> None:
        self._stops, self._for_gradient = stops, for_gradient

    def of(self, variable: Variable) -> Variable | None:
        """Return the stable form of an expression, or None if there is no other."""
        op, inputs = variable.op, variable.inputs
        found = None
        if op is ops.log:
            found = self._log(inputs[0])
        elif op is ops.log1p:
            found = self._log1p(inputs[0])
        elif op is ops.true_div:
            found = self._quotient(variable)
        elif op is ops.power:
            before = self._sigmoid(variable)
            found = None if before is None else ops.sigmoid(before)
        elif op is ops.sub and _is_one(inputs[1], inputs[0]):
            before = self._exp(inputs[0])
            found = None if before is None else ops.expm1(before)
        elif op is ops.mul:
            found = self._product(*inputs)
        return found if found is not None and found.type == variable.type else None

    def _op(self, variable: Variable) -> Op | None:
        return None if variable in self._stops else variable.op

    def _exp(self, variable: Variable, depth: int = 0) -> Variable | None:
        # u of exp(u)
        op, inputs = self._op(variable), variable.inputs
        if isinstance(op, MOVES) and depth < DEEPEST:
            return _moved(variable, self._exp(inputs[0], depth + 1))
        return inputs[0] if op is ops.exp else None

    def _one_plus_exp(self, variable: Variable) -> Variable | None:
        # u of 1 + exp(u)
        if self._op(variable) is ops.add:
            for one, other in (variable.inputs, variable.inputs[::-1]):
                if _is_one(one, other) and self._exp(other) is not None:
                    return self._exp(other)
        return None

    def _sigmoid(self, variable: Variable, depth: int = 0) -> Variable | None:
        # z of sigmoid(z) in any spelling
        op, inputs = self._op(variable), variable.inputs
        if op is ops.sigmoid:
            return inputs[0]
        if isinstance(op, MOVES) and depth < DEEPEST:
            return _moved(variable, self._sigmoid(inputs[0], depth + 1))
        if op is ops.true_div:
            before, power = self._one_plus_exp(inputs[1]), self._exp(inputs[0])
            if before is not None and _is_one(inputs[0], inputs[1]):
                return self._negative(before)
            return before if before is not None and power is not None and _same(before, power) else None
        if op is ops.power and isinstance(inputs[1], Constant) and inputs[1].ndim == 0 and inputs[1].value == -1:
            before = self._one_plus_exp(inputs[0])
            return None if before is None else self._negative(before)
        if op is ops.sub and _is_one(inputs[0], inputs[1]) and depth < DEEPEST:
            before = self._sigmoid(inputs[1], depth + 1)
            return None if before is None else self._negative(before)
        return None

    def _negative(self, variable: Variable) -> Variable:
        op, inputs = self._op(variable), variable.inputs
        if op is ops.neg:
            return inputs[0]
        if op is ops.sub:
            left, right = inputs
            return left.inputs[0] + right if self._op(left) is ops.neg else right - left
        if op is ops.mul:
            for factor, other in (inputs, inputs[::-1]):
                if isinstance(factor, Constant) and factor.ndim == 0 and factor.value < 0:
                    return other if factor.value == -1 else constant(-factor.value) * other
                if self._op(factor) is ops.neg:
                    return factor.inputs[0] * other
        return -variable

    def _quotient(self, variable: Variable) -> Variable | None:
        over, under = variable.inputs
        softmax = self._softmax(variable)
        if softmax is not None:
            return softmax
        before = self._sigmoid(variable)
        if before is not None:
            return ops.sigmoid(before)
        if self._op(over) is ops.neg and self._op(over.inputs[0]) is not ops.neg:
            found = self.of(over.inputs[0] / under)
            return None if found is None else -found
        before = self._exp(under)
        if before is not None:
            power = self._exp(over)
            return over * ops.exp(self._negative(before)) if power is None else ops.exp(power - before)
        before = self._one_plus_exp(under)
        if before is not None:
            for factor, other in (over.inputs, over.inputs[::-1]) if self._op(over) is ops.mul else ():
                power = self._exp(factor)
                if power is not None and _same(power, before):
                    return other * ops.sigmoid(before)
            return over * ops.sigmoid(self._negative(before))
        for factor, other in (under.inputs, under.inputs[::-1]) if self._op(under) is ops.mul else ():
            found = self.of(over / factor) if self._one_plus_exp(factor) is not None else None
            if found is not None:
                return found / other
        return None

    def _product(self, *factors: Variable) -> Variable | None:
        # exp(z) * sigmoid(-z)
        for left, right in (factors, factors[::-1]):
            power = self._exp(left)
            before = None if power is None else self._sigmoid(right)
            if power is not None and before is not None and _same(self._negative(before), power):
                return ops.sigmoid(power)
        return None

    def _softmax(self, variable: Variable) -> Variable | None:
        # exp(z) / sum(exp(z))
        if self._op(variable) is not ops.true_div:
            return None
        over, under = variable.inputs
        before, log = self._exp(over), self._log_sum_exp(under)
        if before is None or log is None or not _same(_unmoved(over), _unmoved(under).inputs[0]):
            return None
        is_whole = self._op(over) is ops.exp and before.ndim == 2
        if is_whole and self._is_by_rows(under) and before.type.dtype in KERNEL_DTYPES:
            return ops.softmax(before)
        return ops.exp(before - log)

    def _is_by_rows(self, sums: Variable) -> bool:
        # Whether these are sums along the rows of a matrix, in a column.
        op = sums.op
        columns: list[Op] = [ops.Dimshuffle((0, "x")), ops.Index((ops.Slice(None, None, None), None))]
        if op in columns:
            (sums,) = sums.inputs
        elif not isinstance(op, ops.Reduction) or not op.keepdims:
            return False
        return isinstance(sums.op, ops.Reduction) and sums.op.axes == (1,)

    def _log_sum_exp(self, variable: Variable, depth: int = 0) -> Variable | None:
        # log(sum(exp(z)))
        op = self._op(variable)
        if isinstance(op, MOVES):
            return _moved(variable, self._log_sum_exp(variable.inputs[0], depth + 1)) if depth < DEEPEST else None
        if not isinstance(op, ops.Reduction) or op.name != "sum":
            return None
        before = self._exp(variable.inputs[0])
        return None if before is None else apply(ops.LogSumExp(op.axes, op.keepdims), variable.type, before)

    def _log1p(self, variable: Variable) -> Variable | None:
        before = self._exp(variable)
        if before is not None:
            return ops.softplus(before)
        before = self._sigmoid(variable.inputs[0]) if self._op(variable) is ops.neg else None
        return None if before is None else -ops.softplus(before)

    def _log(self, variable: Variable, depth: int = 0) -> Variable | None:
        op, inputs = self._op(variable), variable.inputs
        if depth > DEEPEST:
            return None
        if isinstance(op, ops.Softmax):
            return apply(ops.LogSoftmax(), variable.type, *inputs)
        if op is ops.exp:
            return inputs[0]
        if isinstance(op, MOVES):
            return _moved(variable, self._log(inputs[0], depth + 1))
        if isinstance(op, ops.Reduction):
            return self._log_sum_exp(variable)
        before = self._sigmoid(variable)
        if before is not None:
            return -ops.softplus(self._negative(before))
        softmax = self._softmax(variable)
        if softmax is not None:
            of_rows = isinstance(softmax.op, ops.Softmax)
            return apply(ops.LogSoftmax(), variable.type, *softmax.inputs) if of_rows else softmax.inputs[0]
        if self._for_gradient and op in (ops.mul, ops.true_div, ops.neg, ops.power, ops.sqr, ops.sqrt):
            return self._log_of_product(variable, depth)
        return self._log_of_sum(variable)

    def _log_of_sum(self, variable: Variable) -> Variable | None:
        op, inputs = self._op(variable), variable.inputs
        if op is ops.add:
            left, right = self._exp(inputs[0]), self._exp(inputs[1])
            if left is not None and right is not None:
                return ops.logaddexp(left, right)
            for one, other in (inputs, inputs[::-1]):
                if _is_one(one, other):
                    found = self._log1p(other)
                    return ops.log1p(other) if found is None else found
        if op is ops.sub and _is_one(inputs[0], inputs[1]):
            return ops.log1p(-inputs[1])
        return None

    def _log_of_product(self, variable: Variable, depth: int) -> Variable | None:
        # Sums of logarithms, if one of them has another form; they may be NaN where the factors are negative.
        op, inputs = variable.op, variable.inputs
        found = [self._log(source, depth + DEEPEST // DEEPEST_PRODUCT) for source in inputs]
        if op is ops.mul or op is ops.true_div:
            if all(form is None for form in found):
                return None
            left, right = (
                ops.log(source) if form is None else form for source, form in zip(inputs, found, strict=True)
            )
            return left + right if op is ops.mul else left - right
        if found[0] is None or (op is ops.power and not isinstance(inputs[1], Constant)):
            return None
        exponents: dict[Op | None, Operand] = {ops.neg: 1, ops.sqr: 2, ops.sqrt: 0.5, ops.power: inputs[-1]}
        return exponents[op] * found[0]


def _unmoved(variable: Variable) -> Variable:
    while isinstance(variable.op, MOVES):
        variable = variable.inputs[0]
    return variable


def _moved(variable: Variable, form: Variable | None) -> Variable | None:
    # A form with its elements moved as the variable's operation moves those of its input.
    assert variable.op is not None
    return None if form is None else apply(variable.op, variable.type, form, *variable.inputs[1:])


def _is_one(variable: Variable, beside: Variable) -> bool:
    # Whether a variable is 1, with no more elements than the other operand.
    if isinstance(variable.op, ops.BroadcastTo):
        return _is_one(variable.inputs[0], beside) and variable.shapes == beside.shapes
    return isinstance(variable, Constant) and variable.ndim == 0 and bool(variable.value == 1)


def _same(left: Variable, right: Variable, depth: int = 0) -> bool:
    # Whether two expressions are written alike.
    if left is right:
        return True
    if isinstance(left, Constant) and isinstance(right, Constant):
        return left.type == right.type and left.value.tobytes() == right.value.tobytes()
    if left.op is None or left.op != right.op or left.type != right.type or depth == DEEPEST:
        return False
    return all(_same(*pair, depth + 1) for pair in zip(left.inputs, right.inputs, strict=True))
