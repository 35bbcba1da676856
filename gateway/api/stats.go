package api

import (
	"runtime"
	"time"
)

// conferenceSizes is the number of buckets of Jigasi's conference_sizes: one
// for each size, the last for all larger ones.
const conferenceSizes = 22

// jigasiStats is the body of /about/stats under Jigasi's names. What Jigasi
// counts for transcription stays zero. The trunks are Brewline's own.
func jigasiStats(s Snapshot, now time.Time) map[string]any {
	rooms := map[string]int{} // participants
	sizes := [conferenceSizes]int{}
	participants := 0
	for _, c := range s.Calls {
		if c.Nick == "" {
			continue // not in a room
		}
		rooms[c.Deployment+"\x00"+c.Room] = c.InRoom()
		participants += c.InRoom()
	}
	for _, n := range rooms {
		sizes[min(n, conferenceSizes-1)]++
	}
	var ended uint64
	for _, n := range s.Ended {
		ended += n
	}
	m := map[string]any{
		"conferences":                               len(s.Calls),
		"participants":                              participants,
		"stress_level":                              stress(s),
		"conference_sizes":                          sizes,
		"threads":                                   runtime.NumGoroutine(),
		"current_timestamp":                         now.UTC().Format("2006-01-02 15:04:05.000"),
		"total_conferences_completed":               s.Answered,
		"total_participants":                        s.Answered,
		"total_conference_seconds":                  s.TalkedSeconds,
		"total_calls_with_dropped_media":            s.Ended["phone_silent"],
		"total_count_dropped_media":                 s.Ended["phone_silent"],
		"total_calls_with_connection_failed":        ended - min(ended, s.Answered),
		"total_calls_with_sip_call_waiting":         s.Rejoins,
		"total_calls_with_sip_call_reconnected":     s.Rejoins,
		"total_calls_with_jvb_migrate":              uint64(0),
		"total_calls_jvb_no_media":                  s.Ended["no_media"],
		"total_calls_no_heartbeat_response":         uint64(0),
		"graceful_shutdown":                         s.Draining,
		"trunks":                                    trunks(s),
		"total_transcriber_connection_errors":       0,
		"total_transcriber_connection_retries":      0,
		"total_transcriber_failed":                  0,
		"total_transcriber_g_minutes":               0,
		"total_transcriber_g_requests":              0,
		"total_transcriber_ggl_millis":              0,
		"total_transcriber_no_result_errors":        0,
		"total_transcriber_oci_millis":              0,
		"total_transcriber_send_errors":             0,
		"total_transcriber_session_creation_errors": 0,
		"total_transcriber_started":                 0,
		"total_transcriber_stopped":                 0,
		"total_transcriber_vsk_millis":              0,
		"total_transcriber_wsp_millis":              0,
	}
	return m
}

// stress is the share of the calls that may be taken, 1 when none can.
func stress(s Snapshot) float64 {
	if s.MaxCalls <= 0 {
		return 1
	}
	return float64(len(s.Calls)) / float64(s.MaxCalls)
}

// trunkStats is a trunk in /about/stats.
type trunkStats struct {
	State      string           `json:"state"`
	Reason     string           `json:"reason,omitempty"`
	Since      time.Time        `json:"since"`
	Registrars []registrarStats `json:"registrars,omitempty"`
}

type registrarStats struct {
	URI        string     `json:"uri"`
	Registered bool       `json:"registered"`
	Until      *time.Time `json:"until,omitempty"`
	Reason     string     `json:"reason,omitempty"`
}

func trunks(s Snapshot) map[string]trunkStats {
	out := map[string]trunkStats{}
	for _, t := range s.Trunks {
		ts := trunkStats{State: string(t.State), Reason: t.Reason, Since: t.Since.UTC().Truncate(time.Second)}
		for _, r := range t.Registrars {
			rs := registrarStats{URI: r.URI, Registered: r.Registered, Reason: r.Reason}
			if r.Registered {
				until := r.Until.UTC().Truncate(time.Second)
				rs.Until = &until
			}
			ts.Registrars = append(ts.Registrars, rs)
		}
		out[t.Trunk] = ts
	}
	return out
}
