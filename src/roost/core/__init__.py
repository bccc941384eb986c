"""The cluster thought through: pure machines, an event and the time in, effects out. Nothing here touches the world."""
