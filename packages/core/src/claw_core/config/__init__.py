"""What is configured: `claw.toml`, `.env`, `groups/NAME/config.json` and the environment."""
