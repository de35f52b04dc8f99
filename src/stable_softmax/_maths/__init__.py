"""The mathematics: functions of arrays, which know neither public arguments nor any library by name."""
