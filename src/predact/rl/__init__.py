"""What the agents share: replay, schedules, DQN and its Lightning training."""
