package webhook

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/wire"
)

// Slugs of events: what happened to what. There may be others; see
// [Event.Known].
const (
	TaskCreated       = "task.created"
	TaskSucceeded     = "task.succeeded"
	TaskFailed        = "task.failed"
	PollCreated       = "poll.created"
	PollCompleted     = "poll.completed"
	SessionExpired    = "session.expired"
	WebhookConfigTest = "webhook_config.test"
)

// Event is an event that ricloud has signed, or that its API has listed.
type Event struct {
	keywright.Event

	// Task is the task that the event is about, nil if it is about something
	// else.
	Task *keywright.Task
	// WebhookConfig is the webhook config that the event tests, nil if it does
	// something else.
	WebhookConfig *keywright.WebhookConfig
	// Raw is the delivery's body as it arrived, JSON. It is absent in an event
	// that was listed.
	Raw keywright.Secret
}

// Known reports whether this version knows the event's slug.
func (e *Event) Known() bool {
	switch e.Slug() {
	case TaskCreated, TaskSucceeded, TaskFailed, PollCreated, PollCompleted, SessionExpired, WebhookConfigTest:
		return true
	}
	return false
}

// Digest identifies the content of a delivery: what every attempt to deliver
// the event says alike. It is zero for an event that was listed.
func (e *Event) Digest() (d Digest) {
	if e.Raw.IsZero() {
		return d
	}
	h := sha256.New()
	add := func(s string) {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		_, _ = io.WriteString(h, s)
	}
	for _, s := range [...]string{string(e.ID), e.Type, e.Action, e.DateCreated.UTC().Format(time.RFC3339Nano), e.Data.Reveal()} {
		add(s)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Extra)) {
		add(name)
		add(e.Extra[name].Reveal())
	}
	h.Sum(d[:0])
	return d
}

// parseEvent reads the body of a delivery.
func parseEvent(body []byte) (*Event, error) {
	e := new(Event)
	if err := e.Event.UnmarshalJSON(body); err != nil {
		var bad *wire.Error
		if errors.As(err, &bad) && bad.Path == "" && bad.Want == "JSON" {
			return nil, fmt.Errorf("%w: body is not JSON", ErrInvalidEvent)
		}
		return nil, fmt.Errorf("%w: %w", ErrInvalidEvent, err)
	}
	e.Raw = keywright.NewSecret(string(body))
	if err := e.complete(); err != nil {
		return nil, err
	}
	return e, nil
}

// maxName bounds ids and slugs, which are remembered and logged.
const maxName = 256

// complete checks an event and decodes what it is about, if this version knows
// it. A resource that cannot be read leaves its field nil and its text in Data:
// the event is true all the same.
func (e *Event) complete() error {
	switch {
	case e.ID == "":
		return fmt.Errorf("%w: event has no id", ErrInvalidEvent)
	case e.Type == "" || e.Action == "":
		return fmt.Errorf("%w: event has no type or no action", ErrInvalidEvent)
	case !utf8.ValidString(string(e.ID)) || !utf8.ValidString(e.Type) || !utf8.ValidString(e.Action):
		return fmt.Errorf("%w: event has an id, a type or an action that is not UTF-8", ErrInvalidEvent)
	case len(e.ID) > maxName || len(e.Type) > maxName || len(e.Action) > maxName:
		return fmt.Errorf("%w: event has an id, a type or an action of more than %d bytes", ErrInvalidEvent, maxName)
	}
	switch e.Type {
	case "task":
		e.Task = decode[keywright.Task]([]byte(e.Data.Reveal()))
	case "webhook_config":
		e.WebhookConfig = decode[keywright.WebhookConfig]([]byte(e.Data.Reveal()))
	}
	return nil
}

func decode[T any, P interface {
	*T
	UnmarshalJSON([]byte) error
}](data []byte) *T {
	v := new(T)
	if P(v).UnmarshalJSON(data) != nil {
		return nil
	}
	return v
}

// encode writes an event that was listed as a delivery would have it.
func (e *Event) encode() ([]byte, error) {
	m := map[string]any{
		"id": e.ID, "resource": "event", "type": e.Type, "action": e.Action, "state": e.State,
		"retries": e.Retries, "date_created": e.DateCreated, "date_delivered": e.DateDelivered, "data": nil,
	}
	if !e.Data.IsZero() {
		m["data"] = json.RawMessage(e.Data.Reveal())
	}
	for name, v := range e.Extra {
		m[name] = json.RawMessage(v.Reveal())
	}
	b, err := json.Marshal(m)
	if err != nil { // such as a time beyond the year 9999
		return nil, fmt.Errorf("%w: it cannot be written down", ErrInvalidEvent)
	}
	return b, nil
}
