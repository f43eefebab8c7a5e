package rotation

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/keywright/keywright"
)

// State is where a rotation is.
type State string

// States, in the order in which an undisturbed rotation goes through them.
const (
	StateIdle         State = "IDLE"         // nothing is under way
	StatePlanned      State = "PLANNED"      // checked; nothing was sent
	StateIntent       State = "INTENT"       // the token may be asked for at any moment
	StateResolving    State = "RESOLVING"    // it was asked for, and nobody knows the answer
	StateIssued       State = "ISSUED"       // the new token is in the journal
	StateVerified     State = "VERIFIED"     // the provider accepts it
	StateDistributing State = "DISTRIBUTING" // sinks are being written
	StateConverging   State = "CONVERGING"   // waiting for readers
	StateRetiring     State = "RETIRING"     // the old token is being refused
	StateDone         State = "DONE"         // over
	StateRollingBack  State = "ROLLING_BACK" // sinks go back to the old token
	StateRolledBack   State = "ROLLED_BACK"  // over, with the old token
	StateStuck        State = "STUCK"        // needs a person
)

// Finished reports whether nothing is under way.
func (s State) Finished() bool {
	return s == StateIdle || s == StateDone || s == StateRolledBack || s == ""
}

// SinkState is how far the delivery to one sink is.
type SinkState string

// States of a sink.
const (
	SinkPending   SinkState = "pending"   // holds what it held before
	SinkWriting   SinkState = "writing"   // may hold either
	SinkConfirmed SinkState = "confirmed" // has the new token
	SinkConflict  SinkState = "conflict"  // holds what somebody else wrote
	SinkFailed    SinkState = "failed"    // could not be written
)

// record is what the journal keeps of a job. Tokens are sealed.
type record struct {
	Version    int    `json:"version"`
	Job        string `json:"job"`
	Strategy   string `json:"strategy"`
	Key        string `json:"key"` // as the strategy names it
	Lineage    string `json:"lineage"`
	Generation int    `json:"generation"` // rotations finished

	State     State    `json:"state"`
	Resume    State    `json:"resume,omitempty"` // when stuck: where it goes on
	Operation string   `json:"operation,omitempty"`
	Campaign  string   `json:"campaign,omitempty"` // the fleet run that the last rotation belonged to
	Attempts  int      `json:"attempts,omitempty"`
	Problem   string   `json:"problem,omitempty"`
	Steps     []string `json:"steps,omitempty"`

	Current  []byte `json:"current,omitempty"` // sealed: the token in use when nothing is under way
	Old      []byte `json:"old,omitempty"`
	Replaced []byte `json:"replaced,omitempty"`
	New      []byte `json:"new,omitempty"`

	Data  map[string]string `json:"data,omitempty"`
	Sinks []sinkRecord      `json:"sinks,omitempty"`

	Offset   time.Duration `json:"offset,omitempty"`  // nanoseconds that the provider's clock is ahead
	Latest   time.Time     `json:"latest,omitzero"`   // it is later than this; all times are the provider's
	Intent   time.Time     `json:"intent,omitzero"`   // when the token was asked for, or later
	Quiet    time.Time     `json:"quiet,omitzero"`    // when earlier requests must have died
	Deadline time.Time     `json:"deadline,omitzero"` // when the old token lapses by itself
	Trying   time.Time     `json:"trying,omitzero"`   // since when the step at hand has failed
	Back     bool          `json:"back,omitempty"`    // it is to be rolled back once it is resolved
	Doubt    bool          `json:"doubt,omitempty"`   // a token may have been issued that nobody knows
	Since    time.Time     `json:"since,omitzero"`    // when the last sink was confirmed
	Finished time.Time     `json:"finished,omitzero"` // when the last rotation was over
	Issued   time.Time     `json:"issued,omitzero"`   // when the token in use was issued

	FingerprintKey []byte `json:"fingerprint_key,omitempty"` // sealed
}

// sinkRecord is how far one sink is.
type sinkRecord struct {
	Name    string        `json:"name"`
	State   SinkState     `json:"state"`
	Held    string        `json:"held,omitempty"`    // "old", or "nothing"
	Version string        `json:"version,omitempty"` // as it was before the rotation
	Problem string        `json:"problem,omitempty"`
	At      time.Time     `json:"at,omitzero"`   // when it was confirmed
	Lag     time.Duration `json:"lag,omitempty"` // nanoseconds, as it was declared
}

const recordVersion = 1

func randomHex(digits int) string {
	b := make([]byte, digits/2)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func (rec *record) encode() []byte {
	b, _ := json.Marshal(rec) // text, numbers and times only
	return b
}

func decodeRecord(b []byte, job string) (*record, error) {
	rec := new(record)
	if err := json.Unmarshal(b, rec); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	switch {
	case rec.Version != recordVersion:
		return nil, fmt.Errorf("%w: written by another version (%d)", ErrJournal, rec.Version)
	case rec.Job != job:
		return nil, fmt.Errorf("%w: it is of job %q, not of %q", ErrJournal, rec.Job, job)
	}
	return rec, nil
}

// vault seals the secrets of one job.
type vault struct {
	sealer Sealer
	job    string
	key    []byte                      // for fingerprints
	known  map[string]keywright.Secret // by their sealed text
}

func (v *vault) seal(ctx context.Context, s keywright.Secret) ([]byte, error) {
	if s.IsZero() {
		return nil, nil
	}
	return v.sealer.Seal(ctx, []byte(s.Reveal()), v.job)
}

// reseal returns what is sealed already if that is s.
func (v *vault) reseal(ctx context.Context, sealed []byte, s keywright.Secret) ([]byte, error) {
	if have, ok := v.known[string(sealed)]; ok && have.Equal(s) && len(sealed) > 0 {
		return sealed, nil
	}
	b, err := v.seal(ctx, s)
	if err == nil {
		v.remember(b, s)
	}
	return b, err
}

func (v *vault) open(ctx context.Context, sealed []byte) (keywright.Secret, error) {
	if len(sealed) == 0 {
		return keywright.Secret{}, nil
	}
	b, err := v.sealer.Open(ctx, sealed, v.job)
	s := keywright.NewSecret(string(b))
	if err == nil {
		v.remember(sealed, s)
	}
	return s, err
}

func (v *vault) remember(sealed []byte, s keywright.Secret) {
	if v.known == nil {
		v.known = make(map[string]keywright.Secret)
	}
	v.known[string(sealed)] = s
}

// fingerprint tells tokens apart in this journal, for as long as it exists.
func (v *vault) fingerprint(s keywright.Secret) string {
	if s.IsZero() || v.key == nil {
		return ""
	}
	h := hmac.New(sha256.New, v.key)
	io.WriteString(h, s.Reveal())
	return hex.EncodeToString(h.Sum(nil)[:6])
}
