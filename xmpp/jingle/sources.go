package jingle

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
)

// parseJSONSources reads the compact form of sources: for every owner the
// lists [video, video groups, audio, audio groups], of which the last ones
// may be missing. Other messages have no sources.
func parseJSONSources(b []byte) ([]Source, error) {
	var msg struct {
		Sources map[string][]json.RawMessage `json:"sources"`
	}
	if err := json.Unmarshal(b, &msg); err != nil {
		return nil, fmt.Errorf("jingle: json-message: %w", err)
	}
	var out []Source
	for _, who := range slices.Sorted(maps.Keys(msg.Sources)) {
		for i, raw := range msg.Sources[who] {
			if i != 0 && i != 2 {
				continue
			}
			var list []struct {
				SSRC json.Number `json:"s"`
				Name string      `json:"n"`
				MSID string      `json:"m"`
			}
			if err := json.Unmarshal(raw, &list); err != nil {
				return nil, fmt.Errorf("jingle: sources of %.40q: %w", who, err)
			}
			for _, s := range list {
				ssrc, ok := number(s.SSRC.String(), 1, math.MaxUint32)
				if !ok {
					continue
				}
				out = append(out, Source{SSRC: uint32(ssrc), Name: s.Name, Owner: owner(who), MSID: s.MSID, Video: i == 0})
			}
			if len(out) > maxSources {
				return nil, ErrTooLarge
			}
		}
	}
	return out, nil
}
