package media

// A Prompt is a bundled spoken announcement.
type Prompt uint8

// The prompts.
const (
	PromptAlone          Prompt = iota + 1 // you are the only one here
	PromptWaitingHost                      // the conference has not been opened by its host yet
	PromptLobby                            // waiting in the lobby to be let in
	PromptLobbyDenied                      // not let in
	PromptMuted                            // muted
	PromptUnmuted                          // no longer muted
	PromptEnded                            // the conference has ended
	PromptFull                             // the conference is full
	PromptConnecting                       // still being connected
	PromptReconnecting                     // the way to the conference was lost, trying again
	PromptLobbyAdmitted                    // let in from the lobby
	PromptWrongPassword                    // the password is wrong or missing
	PromptUnavailable                      // the conference cannot be reached
	promptCount
)
