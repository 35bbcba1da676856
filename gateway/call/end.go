package call

import (
	"errors"

	"brewline/brewery"
	"brewline/gateway/conference"
	"brewline/media"
	"brewline/sip"
)

// End is why a call ended. It is set once and drives the SIP code, the Reason
// header, the log line and the metric.
type End string

// The ends of a call.
const (
	EndCallerHungUp   End = "caller_hung_up"
	EndCancelled      End = "cancelled"
	EndPhoneLost      End = "phone_lost"
	EndPhoneSilent    End = "phone_silent"
	EndNoRoom         End = "no_room"
	EndNoDeployment   End = "no_deployment"
	EndUnknownShard   End = "unknown_shard"
	EndBusy           End = "gateway_full"
	EndDraining       End = "draining"
	EndNoShard        End = "no_shard_up"
	EndTrunkLimit     End = "trunk_limit"
	EndNoCodec        End = "no_codec"
	EndSRTP           End = "srtp"
	EndBadOffer       End = "bad_offer"
	EndNoPorts        End = "no_ports"
	EndShardDown      End = "shard_down"
	EndLoginRefused   End = "login_refused"
	EndNoFocus        End = "no_focus"
	EndHostAbsent     End = "host_absent"
	EndPassword       End = "password"
	EndLobbyDenied    End = "lobby_denied"
	EndLobbyTimeout   End = "lobby_timeout"
	EndRoomFull       End = "room_full"
	EndNotAllowed     End = "not_allowed"
	EndRoomNotOpen    End = "room_not_open"
	EndNeverInvited   End = "never_invited"
	EndNoMedia        End = "no_media"
	EndKicked         End = "kicked"
	EndConferenceOver End = "conference_over"
	EndAlone          End = "alone"
	EndConferenceLost End = "conference_lost"
	EndShutdown       End = "shutdown"
	EndEmpty          End = "last_human_left"
	EndHungUpByRoom   End = "hung_up_by_room"
	EndNumberRefused  End = "number_refused"
	EndDialLate       End = "dial_too_late"
	EndCalleeBusy     End = "callee_busy"
	EndCalleeRejected End = "callee_rejected"
	EndCalleeNoAnswer End = "callee_no_answer"
	EndCalleeFailed   End = "callee_failed"
	EndInternal       End = "internal"
)

// Outcome is what an End looks like from outside.
type Outcome struct {
	Code   int          // final response of an unanswered call
	Cause  int          // Q.850 cause
	Text   string       // for a telephony engineer
	Retry  bool         // Retry-After goes with the response
	Prompt media.Prompt // what an answered caller hears before the BYE
}

// outcomes follows the rule that 503 is said only when this process can take
// no call, since dispatchers bench a gateway for it.
var outcomes = map[End]Outcome{
	EndCallerHungUp:   {0, 16, "Normal call clearing", false, promptNone},
	EndCancelled:      {487, 16, "Cancelled by the caller", false, promptNone},
	EndPhoneLost:      {480, 41, "The phone did not confirm the call", false, promptNone},
	EndPhoneSilent:    {480, 41, "Nothing was received from the phone any more", false, promptNone},
	EndNoRoom:         {404, 1, "No room was named: neither a header, nor the called number, nor the trunk tells one", false, promptNone},
	EndNoDeployment:   {404, 1, "The room belongs to no single deployment", false, promptNone},
	EndUnknownShard:   {404, 1, "The shard named for the room is not configured", false, promptNone},
	EndBusy:           {503, 42, "The gateway has as many calls as it may", true, promptNone},
	EndDraining:       {503, 42, "The gateway is being shut down", true, promptNone},
	EndNoShard:        {503, 42, "No shard can be reached", true, media.PromptEnded},
	EndTrunkLimit:     {480, 42, "The trunk has as many calls as it may", false, promptNone},
	EndNoCodec:        {488, 65, "No codec in common", false, promptNone},
	EndSRTP:           {488, 65, "Offer and answer do not agree on SRTP", false, promptNone},
	EndBadOffer:       {488, 65, "The session description cannot be used", false, promptNone},
	EndNoPorts:        {503, 42, "No free UDP port for media", true, promptNone},
	EndShardDown:      {480, 41, "The shard of the room cannot be reached", false, media.PromptEnded},
	EndLoginRefused:   {480, 41, "The shard refused the gateway's login", false, media.PromptEnded},
	EndNoFocus:        {480, 41, "No Jicofo answers on the shard", false, media.PromptEnded},
	EndHostAbsent:     {480, 18, "The host has not opened the conference", false, media.PromptEnded},
	EndPassword:       {403, 21, "The room's password is missing or wrong", false, media.PromptEnded},
	EndLobbyDenied:    {403, 21, "A moderator refused the caller", false, media.PromptLobbyDenied},
	EndLobbyTimeout:   {480, 19, "Nobody admitted the caller from the lobby", false, media.PromptEnded},
	EndRoomFull:       {486, 17, "The room is full", false, media.PromptFull},
	EndNotAllowed:     {403, 21, "The shard does not let the gateway into the room", false, media.PromptEnded},
	EndRoomNotOpen:    {480, 41, "The room could not be opened", false, media.PromptEnded},
	EndNeverInvited:   {480, 18, "No invite from conference focus", false, media.PromptEnded},
	EndNoMedia:        {480, 41, "No media path to the videobridge", false, media.PromptEnded},
	EndKicked:         {480, 16, "Removed from the conference", false, media.PromptEnded},
	EndConferenceOver: {480, 16, "The conference was ended", false, media.PromptEnded},
	EndAlone:          {480, 19, "Nobody else joined the conference", false, media.PromptEnded},
	EndConferenceLost: {480, 41, "The conference was lost", false, media.PromptEnded},
	EndShutdown:       {503, 42, "The gateway is being shut down", true, promptNone},
	EndEmpty:          {480, 16, "The last human left the conference", false, promptNone},
	EndHungUpByRoom:   {480, 16, "Hung up by the conference", false, promptNone},
	EndNumberRefused:  {403, 21, "The number may not be dialled", false, promptNone},
	EndDialLate:       {480, 102, "Jicofo's request was answered too late", false, promptNone},
	EndCalleeBusy:     {486, 17, "The callee is busy", false, promptNone},
	EndCalleeRejected: {480, 21, "The callee refused the call", false, promptNone},
	EndCalleeNoAnswer: {480, 19, "The callee did not answer", false, promptNone},
	EndCalleeFailed:   {480, 41, "The callee could not be reached", false, promptNone},
	EndInternal:       {500, 41, "Internal error", false, promptNone},
}

// Outcome tells how an end is said on the wire.
func (e End) Outcome() Outcome {
	if o, ok := outcomes[e]; ok {
		return o
	}
	return outcomes[EndInternal]
}

// reason is the Reason header of a final response or BYE (RFC 3326).
func (e End) reason(detail error) sip.Reason {
	o := e.Outcome()
	text := o.Text
	if detail != nil {
		text = detail.Error()
	}
	return sip.Reason{Protocol: "Q.850", Cause: o.Cause, Text: text}
}

// retryable says whether another leg may succeed where one ended like this.
func retryable(e End) bool {
	switch e {
	case EndShardDown, EndNoShard, EndConferenceLost, EndNoFocus, EndNoMedia, EndNeverInvited, EndRoomNotOpen:
		return true
	}
	return false
}

// endOf translates an error of the legs or of the brewery.
func endOf(err error) End {
	for _, m := range []struct {
		err error
		end End
	}{
		{conference.ErrHostAbsent, EndHostAbsent},
		{conference.ErrPassword, EndPassword},
		{conference.ErrLobbyDenied, EndLobbyDenied},
		{conference.ErrLobbyTimeout, EndLobbyTimeout},
		{conference.ErrRoomFull, EndRoomFull},
		{conference.ErrNotAllowed, EndNotAllowed},
		{conference.ErrVisitor, EndNotAllowed},
		{conference.ErrNoFocus, EndNoFocus},
		{conference.ErrRoomNotOpen, EndRoomNotOpen},
		{conference.ErrNeverInvited, EndNeverInvited},
		{conference.ErrKicked, EndKicked},
		{conference.ErrDestroyed, EndConferenceOver},
		{conference.ErrSessionLost, EndConferenceLost},
		{conference.ErrOverflow, EndConferenceLost},
		{conference.ErrUnreachable, EndShardDown},
		{conference.ErrLogin, EndLoginRefused},
		{conference.ErrNoPorts, EndNoPorts},
		{conference.ErrMedia, EndNoMedia},
		{brewery.ErrOwnerDown, EndShardDown},
		{brewery.ErrUnknownShard, EndUnknownShard},
		{brewery.ErrNothingUp, EndNoShard},
		{brewery.ErrCredentials, EndNotAllowed},
		{brewery.ErrNoRoom, EndNoRoom},
		{brewery.ErrNoDeployment, EndNoDeployment},
		{brewery.ErrAmbiguous, EndNoDeployment},
		{sip.ErrNoCodec, EndNoCodec},
		{sip.ErrSRTP, EndSRTP},
	} {
		if errors.Is(err, m.err) {
			return m.end
		}
	}
	return EndInternal
}
