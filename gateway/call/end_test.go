package call

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"brewline/brewery"
	"brewline/gateway/conference"
	"brewline/sip"
)

// Dispatchers bench a gateway for a 503, so it may only be said when this
// process can take no call at all.
func TestOutcomes(t *testing.T) {
	noCall := map[End]bool{EndBusy: true, EndDraining: true, EndNoShard: true, EndNoPorts: true, EndShutdown: true}
	for e, o := range outcomes {
		if (o.Code == 503) != noCall[e] {
			t.Errorf("%s is answered with %d", e, o.Code)
		}
		if o.Retry != (o.Code == 503) {
			t.Errorf("%s: Retry-After goes with 503 alone", e)
		}
		if o.Text == "" || o.Cause < 1 || o.Cause > 127 {
			t.Errorf("%s says %q with Q.850 cause %d", e, o.Text, o.Cause)
		}
		if o.Code != 0 && (o.Code < 400 || o.Code > 599) {
			t.Errorf("%s is answered with %d", e, o.Code)
		}
	}
	if o := End("unheard of").Outcome(); o.Code != 500 {
		t.Errorf("an unknown end is answered with %d", o.Code)
	}
}

func TestEndOf(t *testing.T) {
	for _, tt := range []struct {
		err  error
		end  End
		code int
	}{
		{brewery.ErrNoRoom, EndNoRoom, 404},
		{brewery.ErrAmbiguous, EndNoDeployment, 404},
		{brewery.ErrOwnerDown, EndShardDown, 480},
		{brewery.ErrNothingUp, EndNoShard, 503},
		{conference.ErrPassword, EndPassword, 403},
		{conference.ErrLobbyDenied, EndLobbyDenied, 403},
		{conference.ErrRoomFull, EndRoomFull, 486},
		{conference.ErrHostAbsent, EndHostAbsent, 480},
		{conference.ErrNeverInvited, EndNeverInvited, 480},
		{conference.ErrSessionLost, EndConferenceLost, 480},
		{sip.ErrNoCodec, EndNoCodec, 488},
		{errors.New("anything"), EndInternal, 500},
	} {
		end := endOf(fmt.Errorf("somewhere: %w", tt.err))
		if end != tt.end || end.Outcome().Code != tt.code {
			t.Errorf("%v ends as %s with %d, want %s with %d", tt.err, end, end.Outcome().Code, tt.end, tt.code)
		}
	}
}

// Durations that Jicofo and those in the meeting see, where nobody says others.
func TestDefaults(t *testing.T) {
	if d := (Timers{}).withDefaults(); d.Invited != 10*time.Second || d.StatusStays != 5*time.Second || d.AloneAnswer != 15*time.Second || d.AloneMax != 10*time.Minute {
		t.Errorf("%+v", d)
	}
}
