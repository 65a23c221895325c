"""What the agents share: environments, replay, schedules; Q-table, DQN and PPO, and their training in Lightning."""
