package rotation

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
)

// auditEntry is one line of the audit trail: a change of state, of the job or
// of one sink. Tokens are fingerprints.
type auditEntry struct {
	Time      string    `json:"time"`
	Operation string    `json:"operation,omitempty"`
	From      State     `json:"from,omitempty"`
	To        State     `json:"to,omitempty"`
	Sink      string    `json:"sink,omitempty"`
	SinkState SinkState `json:"sink_state,omitempty"`
	Old       string    `json:"old,omitempty"`
	New       string    `json:"new,omitempty"`
	Problem   string    `json:"problem,omitempty"`
	Previous  string    `json:"previous"` // hash of the line before
	Hash      string    `json:"hash"`     // of this line, with this empty
}

// line returns the entry as a line that follows the line last.
func (a auditEntry) line(last []byte) []byte {
	a.Previous = auditHash(last)
	a.Hash = a.sum()
	return a.encode()
}

func (a auditEntry) encode() []byte {
	b, _ := json.Marshal(a) // strings only
	return b
}

func (a auditEntry) sum() string {
	a.Hash = ""
	sum := sha256.Sum256(a.encode())
	return hex.EncodeToString(sum[:])
}

// auditHash returns the hash that a line carries, "" for no line.
func auditHash(line []byte) string {
	var a auditEntry
	_ = json.Unmarshal(line, &a) // a line that was garbled starts a new chain, which shows
	return a.Hash
}

// CheckAudit reads an audit trail, the file audit.jsonl of a job, and returns
// how many entries it has. It fails at the first that was changed or that does
// not follow the one before. What a power cut left of a line is passed over.
func CheckAudit(trail io.Reader) (entries int, err error) {
	previous := ""
	in := bufio.NewReader(trail)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		var a auditEntry
		if json.Unmarshal(bytes.TrimSpace(line), &a) == nil {
			if a.Previous != previous || a.Hash != a.sum() {
				return entries, fmt.Errorf("rotation: audit: line %d was changed, or one before it was taken out", n)
			}
			previous = a.Hash
			entries++
		}
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return entries, fmt.Errorf("rotation: audit: %w", err)
		}
	}
}
