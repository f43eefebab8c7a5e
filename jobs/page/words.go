package page

import (
	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/rotation"
)

// group is how a key stands, as far as a person must care. Keys are shown in
// this order.
type group int

const (
	groupPerson  group = iota // stuck, or its key has expired
	groupRunning              // a rotation is under way
	groupFailed               // failed, refused or rolled back
	groupDue                  // its time has come
	groupHealthy              // none of these
	groups
)

// words of the groups: as in ?state=, and as people say.
var groupWords = [groups]struct{ Slug, Label string }{
	{"person", "Needs a person"},
	{"running", "Under way"},
	{"failed", "Failed or refused"},
	{"due", "Due"},
	{"healthy", "Healthy"},
}

// Slug is the group as in ?state=, and names its mark and its colours.
func (g group) Slug() string { return groupWords[g].Slug }

// Label is the group in words.
func (g group) Label() string { return groupWords[g].Label }

// standing returns the group of a key and its state in words.
func standing(s *jobs.Status, expired bool) (g group, words string) {
	state := rotation.State(s.State)
	if s.UnderWay() {
		state = s.Rotation.State
	}
	begun := !state.Finished() && s.State != jobs.StateFailed && s.State != jobs.StateRefused
	switch {
	case state == rotation.StateStuck:
		return groupPerson, "Stuck"
	case s.UnderWay() || begun:
		return groupRunning, stateWords(string(state))
	case s.Running:
		return groupRunning, "Beginning"
	case expired:
		return groupPerson, "Expired"
	case s.State == jobs.StateFailed, s.State == jobs.StateRefused, state == rotation.StateRolledBack:
		return groupFailed, stateWords(s.State)
	case s.Overdue:
		return groupDue, "Due"
	case s.State == "" && s.Generation == 0:
		return groupHealthy, "Not rotated yet"
	}
	return groupHealthy, "Healthy"
}

// stateWords is a state in words; one that is not known stays as it is.
func stateWords(state string) string {
	switch state {
	case jobs.StateFailed:
		return "Failed"
	case jobs.StateRefused:
		return "Refused"
	}
	switch rotation.State(state) {
	case rotation.StateIdle:
		return "Nothing under way"
	case rotation.StatePlanned:
		return "Checked, nothing sent"
	case rotation.StateIntent:
		return "Asking for a token"
	case rotation.StateResolving:
		return "Finding out the answer"
	case rotation.StateIssued:
		return "Token issued"
	case rotation.StateVerified:
		return "Token accepted"
	case rotation.StateDistributing:
		return "Delivering"
	case rotation.StateConverging:
		return "Waiting for readers"
	case rotation.StateRetiring:
		return "Retiring the old token"
	case rotation.StateDone:
		return "Done"
	case rotation.StateRollingBack:
		return "Rolling back"
	case rotation.StateRolledBack:
		return "Rolled back"
	case rotation.StateStuck:
		return "Stuck"
	}
	return state
}

// sinkWords is a sink's state in words, and the group whose mark it has.
func sinkWords(state rotation.SinkState) (g group, words string) {
	switch state {
	case rotation.SinkPending:
		return groupDue, "Waits"
	case rotation.SinkWriting:
		return groupRunning, "Being written"
	case rotation.SinkConfirmed:
		return groupHealthy, "Confirmed"
	case rotation.SinkConflict:
		return groupPerson, "Somebody else wrote"
	case rotation.SinkFailed:
		return groupFailed, "Failed"
	}
	return groupDue, string(state)
}
