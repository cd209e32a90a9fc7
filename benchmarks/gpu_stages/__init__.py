"""The stages of ``gpu_validation.py``, what is kept of them, and the page made from it.

``running`` runs the stages, ``keeping`` keeps what they leave, ``card`` makes the loads;
``polling``, ``meters`` and ``studies`` hold the stages. ``figures`` computes every figure from the
kept recordings, ``checks`` judges them, ``page`` writes both down. No setting of a card is ever
changed.
"""
