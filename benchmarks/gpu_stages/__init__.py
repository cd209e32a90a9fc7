"""The stages of ``gpu_validation.py``, what is kept of them, and the page made from it.

``running`` runs the stages, ``keeping`` keeps what they leave, ``card`` makes the loads;
``inventory``, ``polling``, ``meters`` and ``studies`` hold the stages. ``figures`` computes every
figure from the kept recordings, ``checks`` judges them, ``page`` writes both down.

Only commands and public functions are used, and no setting of a card is ever changed.
"""
