// The codes that the server closes the voice socket with, see docs/protocol.md.

export const CloseCode = Object.freeze({
  NOT_LOGGED_IN: 4401,
  WRONG_ORIGIN: 4403,
  UNKNOWN_CONVERSATION: 4404,
  REPLACED: 4409,
  IDLE: 4410,
  ENDED_BY_OPERATOR: 4411,
  NO_ANSWER: 4412,
  SERVER_FULL: 4429,
  TOO_MANY_CALLS: 4430,
  OVERLOADED: 4431,
});
