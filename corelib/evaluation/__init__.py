"""Evaluation of images: predictions, UA, IRA and CRA, FID, the gate, and tests of significance."""
