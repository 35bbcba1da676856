package brewery

// Load is how busy the whole process is, as every brewery shows it.
type Load struct {
	Conferences  int     // calls
	Participants int     // others in their conferences
	Stress       float64 // 0 idle, 1 full
	Draining     bool    // no new calls are taken
}

// SetLoad tells every brewery how busy the process is.
func (s *Set) SetLoad(Load) {}

// SetCanDial says whether a shard may dial at the moment. Until told, it may
// not.
func (s *Set) SetCanDial(shard string, can bool) {}
