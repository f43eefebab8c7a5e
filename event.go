package keywright

import (
	"context"
	"iter"
	"net/url"
	"time"

	"github.com/keywright/keywright/internal/wire"
)

// EventState is the state of an event's delivery. Unknown values are kept.
type EventState string

// States of events.
const (
	EventPending   EventState = "pending"   // to be delivered
	EventDelivered EventState = "delivered" // the receiver answered 2xx
	EventFailed    EventState = "failed"    // not delivered after all attempts
)

// Known reports whether this version knows the state.
func (s EventState) Known() bool { return known(s, EventPending, EventDelivered, EventFailed) }

// Event is something that happened, as it is delivered to webhooks and kept in
// the event log.
type Event struct {
	ID            EventID           `json:"id"`                       // a UUID
	Type          string            `json:"type"`                     // the resource's type, "task"
	Action        string            `json:"action"`                   // what happened to it, "succeeded"
	Data          Secret            `json:"-"`                        // the resource at that moment, as JSON; it may hold a webhook secret
	State         EventState        `json:"state"`                    // of the delivery
	Retries       int               `json:"retries"`                  // deliveries after the first
	DateCreated   time.Time         `json:"date_created,omitzero"`    // UTC
	DateDelivered *time.Time        `json:"date_delivered,omitempty"` // UTC; nil: not yet
	Extra         map[string]Secret `json:"-"`                        // members this version does not know, each as JSON
}

// Slug returns the event's type and action in one word: "task.succeeded".
func (e *Event) Slug() string { return e.Type + "." + e.Action }

func (e *Event) decode(o *wire.Object) {
	for o.Next() {
		switch string(o.Key) {
		case "id":
			wire.StringRef(o, &e.ID)
		case "resource":
			o.Skip()
		case "type":
			wire.Enum(o, &e.Type, "task", "session", "poll", "webhook_config")
		case "action":
			wire.Enum(o, &e.Action, "created", "completed", "succeeded", "failed", "expired", "test")
		case "data":
			if raw := o.Raw(); string(raw) != "null" {
				e.Data = NewSecret(string(raw))
			}
		case "state":
			wire.Enum(o, &e.State, EventPending, EventDelivered, EventFailed)
		case "retries":
			wire.Int(o, &e.Retries)
		case "date_created":
			o.Time(&e.DateCreated)
		case "date_delivered":
			o.TimePtr(&e.DateDelivered)
		}
	}
	e.Extra = unknown(o)
}

func (e *Event) ident() ident { return ident{text: string(e.ID)} }

func (*Event) kind() string { return "event" }

// UnmarshalJSON reads an event as the provider sends it.
func (e *Event) UnmarshalJSON(b []byte) error { return unmarshal(b, e) }

// EventListParams are the filters and the page of a list.
type EventListParams struct {
	Type     string     // only events about resources of this type
	Action   string     // only events with this action
	State    EventState // only events whose delivery is in this state
	Limit    int        // items a page, 1 to 1000; 0: the provider's default of 10 for List, 100 for All
	AfterID  EventID    // start behind this event
	BeforeID EventID    // stop before this event

	// DateCreated is passed on as it is: the provider documents the filter,
	// but not how it is written.
	DateCreated string
}

// EventService looks at the event log.
type EventService service

// Retrieve returns an event: GET /events/{id}. It is a read, and retried.
func (s *EventService) Retrieve(ctx context.Context, id EventID, opts ...CallOption) (*Event, error) {
	path, err := textPath(&opEventRetrieve, "/events", id)
	if err != nil {
		return nil, err
	}
	return fetch[Event](ctx, (*service)(s), &request{op: &opEventRetrieve, path: path}, ident{text: string(id)}, opts)
}

// List returns one page of events: GET /events. It is a read, and retried.
func (s *EventService) List(ctx context.Context, p EventListParams, opts ...CallOption) (*Page[Event], error) {
	l, err := s.lister(p, opts)
	if err != nil {
		return nil, err
	}
	return l.list(ctx)
}

// All iterates over events: GET /events.
func (s *EventService) All(ctx context.Context, p EventListParams, opts ...CallOption) iter.Seq2[*Event, error] {
	l, err := s.lister(p, opts)
	if err != nil {
		return failed[Event](err)
	}
	return l.all(ctx)
}

func (s *EventService) lister(p EventListParams, opts []CallOption) (lister[Event, *Event], error) {
	l := lister[Event, *Event]{s: (*service)(s), op: &opEventList, path: "/events", limit: p.Limit, opts: opts, filters: url.Values{}}
	setText(l.filters, "type", p.Type)
	setText(l.filters, "action", p.Action)
	setText(l.filters, "state", p.State)
	setText(l.filters, "date_created", p.DateCreated)
	return l, setTextWindow(l.op, l.filters, p.AfterID, p.BeforeID)
}
