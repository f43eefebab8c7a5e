package keywright

import (
	"context"
	"errors"
	"iter"
	"net/url"
	"time"

	"github.com/keywright/keywright/internal/wire"
)

// TaskState is the state of a task. Unknown values are kept.
type TaskState string

// States of tasks.
const (
	TaskPending    TaskState = "pending"    // not begun
	TaskProcessing TaskState = "processing" // under way
	TaskSuspended  TaskState = "suspended"  // held up
	TaskSucceeded  TaskState = "succeeded"  // over
	TaskFailed     TaskState = "failed"     // over; see [Task.Error]
)

// Known reports whether this version knows the state.
func (s TaskState) Known() bool {
	return known(s, TaskPending, TaskProcessing, TaskSuspended, TaskSucceeded, TaskFailed)
}

// Terminal reports whether the task is over.
func (s TaskState) Terminal() bool { return s == TaskSucceeded || s == TaskFailed }

// Task is something that ricloud does on its own time, such as the test of a
// config.
type Task struct {
	ID             TaskID            `json:"id"`                       // opaque
	OrganisationID OrganisationID    `json:"organisation"`             // owner
	KeyID          KeyID             `json:"key"`                      // the key that asked for it
	User           *string           `json:"user,omitempty"`           // id; nil for tests of configs
	Source         *string           `json:"source,omitempty"`         // id; nil for tests of configs
	Session        *string           `json:"session,omitempty"`        // id; nil for tests of configs
	Poll           *string           `json:"poll,omitempty"`           // id; nil for tests of configs
	SourceType     *string           `json:"source_type,omitempty"`    // such as "icloud.account"
	Type           string            `json:"type"`                     // such as "webhook_config.test"
	Target         *string           `json:"target,omitempty"`         // the main argument, such as "messages.sms"
	State          TaskState         `json:"state"`                    // how far it is
	Error          *string           `json:"error,omitempty"`          // code of what went wrong; nil if nothing did
	Results        []Secret          `json:"-"`                        // each as JSON; they may hold signed URLs. Older versions of the API send none
	DateCreated    time.Time         `json:"date_created,omitzero"`    // UTC
	DateStarted    *time.Time        `json:"date_started,omitempty"`   // UTC; nil: not yet
	DateCompleted  *time.Time        `json:"date_completed,omitempty"` // UTC; nil: not yet
	Extra          map[string]Secret `json:"-"`                        // members this version does not know, each as JSON
}

func (t *Task) decode(o *wire.Object) {
	for o.Next() {
		switch string(o.Key) {
		case "id":
			wire.StringRef(o, &t.ID)
		case "resource":
			o.Skip()
		case "organisation":
			wire.IntRef(o, &t.OrganisationID)
		case "key":
			wire.IntRef(o, &t.KeyID)
		case "user":
			wire.StringRefPtr(o, &t.User)
		case "source":
			wire.StringRefPtr(o, &t.Source)
		case "session":
			wire.StringRefPtr(o, &t.Session)
		case "poll":
			wire.StringRefPtr(o, &t.Poll)
		case "source_type":
			o.StringPtr(&t.SourceType)
		case "type":
			o.String(&t.Type)
		case "target":
			o.StringPtr(&t.Target)
		case "state":
			wire.Enum(o, &t.State, TaskPending, TaskProcessing, TaskSuspended, TaskSucceeded, TaskFailed)
		case "error":
			o.Loose().StringPtr(&t.Error)
		case "results":
			o.ListRaw(func(raw []byte) { t.Results = append(t.Results, NewSecret(string(raw))) })
		case "date_created":
			o.Time(&t.DateCreated)
		case "date_started":
			o.TimePtr(&t.DateStarted)
		case "date_completed":
			o.TimePtr(&t.DateCompleted)
		}
	}
	t.Extra = unknown(o)
}

func (t *Task) ident() ident { return ident{text: string(t.ID)} }

func (*Task) kind() string { return "task" }

// UnmarshalJSON reads a task as the provider sends it.
func (t *Task) UnmarshalJSON(b []byte) error { return unmarshal(b, t) }

// TaskListParams are the filters and the page of a list. Which filters the
// provider honours is not documented.
type TaskListParams struct {
	Type       string    // only tasks of this type
	State      TaskState // only tasks in this state
	SourceType string    // only tasks for sources of this type, "icloud.account"
	Session    string    // only tasks of this session
	Poll       string    // only tasks of this poll
	Limit      int       // items a page, 1 to 1000; 0: the provider's default of 10 for List, 100 for All
	AfterID    TaskID    // start behind this task
	BeforeID   TaskID    // stop before this task
}

// TaskService looks at tasks.
type TaskService service

// Retrieve returns a task: GET /tasks/{id}. It is a read, and retried.
func (s *TaskService) Retrieve(ctx context.Context, id TaskID, opts ...CallOption) (*Task, error) {
	path, err := textPath(&opTaskRetrieve, "/tasks", id)
	if err != nil {
		return nil, err
	}
	return fetch[Task](ctx, (*service)(s), &request{op: &opTaskRetrieve, path: path}, ident{text: string(id)}, opts)
}

// List returns one page of tasks: GET /tasks. It is a read, and retried.
func (s *TaskService) List(ctx context.Context, p TaskListParams, opts ...CallOption) (*Page[Task], error) {
	l, err := s.lister(p, opts)
	if err != nil {
		return nil, err
	}
	return l.list(ctx)
}

// All iterates over tasks: GET /tasks.
func (s *TaskService) All(ctx context.Context, p TaskListParams, opts ...CallOption) iter.Seq2[*Task, error] {
	l, err := s.lister(p, opts)
	if err != nil {
		return failed[Task](err)
	}
	return l.all(ctx)
}

func (s *TaskService) lister(p TaskListParams, opts []CallOption) (lister[Task, *Task], error) {
	l := lister[Task, *Task]{s: (*service)(s), op: &opTaskList, path: "/tasks", limit: p.Limit, opts: opts, filters: url.Values{}}
	setText(l.filters, "type", p.Type)
	setText(l.filters, "state", p.State)
	setText(l.filters, "source_type", p.SourceType)
	setText(l.filters, "session", p.Session)
	setText(l.filters, "poll", p.Poll)
	return l, setTextWindow(l.op, l.filters, p.AfterID, p.BeforeID)
}

// Waits between two looks at a task.
const (
	firstTaskWait = 500 * time.Millisecond
	maxTaskWait   = 15 * time.Second
)

// Wait asks for the task until it is over, with growing waits between, or
// until ctx ends; in that case it returns the task as last seen with an error
// that matches the context's. A task that failed is no error: see
// [Task.State].
func (s *TaskService) Wait(ctx context.Context, id TaskID, opts ...CallOption) (*Task, error) {
	var last *Task
	for wait := firstTaskWait; ; wait = min(wait*3/2, maxTaskWait) {
		t, err := s.Retrieve(ctx, id, opts...)
		if err != nil {
			return last, err
		}
		if last = t; t.State.Terminal() {
			return t, nil
		}
		if err := sleep(ctx, wait); err != nil {
			return last, &TransportError{
				Provider: s.c.provider, Op: "task.wait", cause: err, ctx: contextCause(ctx),
				fate: fate{outcome: NotSent},
			}
		}
	}
}

// startTest starts the test of a config.
func startTest(ctx context.Context, s *service, op *operation, path, taskType string, opts []CallOption) (*Task, error) {
	r := &request{op: op, path: path}
	r.probe = probeCreated(s, func(ctx context.Context, m *Meta) (*Page[Task], error) {
		return (*TaskService)(s).List(ctx, TaskListParams{Type: taskType, Limit: allLimit}, WithMeta(m))
	}, func(t *Task) time.Time { return t.DateCreated }, func(t *Task) bool { return t.Type == taskType })
	task, err := change[Task](ctx, s, r, ident{}, opts)
	var bad *DecodeError
	if errors.As(err, &bad) && bad.Path == "id" {
		bad.Want = "the id of a task"
	}
	return task, err
}
