"""Which network a verb works with."""

from typing import Any

from fastseg.cli.errors import UserError


def load_network(model: str | None = None, weights: str | None = None) -> tuple[str, Any]:
    """Build a network with trained weights.

    Args:
        model: name of a model or of shipped weights; None takes what the weights say.
        weights: weights file or name of shipped weights; None takes the shipped ones.

    Returns:
        What to call it, and the network in evaluation mode.
    """
    from fastseg.models import create_model, list_weights, read_weights

    shipped = list_weights()
    if weights is None and model not in shipped:
        if model is not None or not shipped:
            names = f" or --model {' | '.join(shipped)}" if shipped else ""
            raise UserError(f"{model or 'this installation'} comes without trained weights: give --weights FILE{names}")
        model = shipped[0]
    if model is None and weights is not None:
        model = read_weights(weights)[1].get("model")
    if model is None:
        raise UserError(f"{weights} does not say its model: give --model NAME")
    return str(weights or model), create_model(model, weights)
