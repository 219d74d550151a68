# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers: from Keras to loops of a dense file, and those to one operator.

``composites`` keeps a Keras layer in one piece on its way through TensorFlow's
converter; ``loops`` writes what it computes as a WHILE loop of standard operators, so
that a dense file runs everywhere; ``recognise`` finds such loops again; ``fuse`` puts
one packed operator in the place of a loop, and the loop in its place again.

What other converters write is made such a loop first, by ``adopt``: TensorFlow's own
loops (``foreign``), single steps, whose cell ``cells`` reads, and TFLite's fused LSTM
(``sequence_lstm``), which comes back as it was when a file is unpacked.
"""
