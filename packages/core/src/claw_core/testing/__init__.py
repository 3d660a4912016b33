"""What tests of the guarantee are made of; nothing of a run imports it."""
