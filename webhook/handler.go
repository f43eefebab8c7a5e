package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// HandlerOption configures a [Handler].
type HandlerOption func(*handler)

// WithStore remembers accepted events in store; the default is a
// [MemoryStore], which forgets when the process ends.
func WithStore(store DedupeStore) HandlerOption {
	return func(h *handler) {
		if store != nil {
			h.store = store
		}
	}
}

// WithMaxBody bounds a delivery's body, in bytes; the default is 1 MiB.
func WithMaxBody(n int64) HandlerOption {
	return func(h *handler) {
		if n > 0 {
			h.maxBody = n
		}
	}
}

// WithReadTimeout bounds how long a sender may take over its body; the default
// is 10 seconds. The time for its headers is the server's ReadHeaderTimeout.
func WithReadTimeout(d time.Duration) HandlerOption {
	return func(h *handler) {
		if d > 0 {
			h.readTimeout = d
		}
	}
}

// WithLogger logs one line per delivery: its status, and for one that was
// verified the event's id and slug. Never a body, a secret or a signature.
func WithLogger(l *slog.Logger) HandlerOption {
	return func(h *handler) {
		if l != nil {
			h.logger = l
		}
	}
}

type handler struct {
	verifier    *Verifier
	accept      func(context.Context, *Event) error
	store       DedupeStore
	maxBody     int64
	readTimeout time.Duration
	logger      *slog.Logger
}

// Handler receives deliveries at any path, the event's id being its last
// element or not. accept is called with each event once; it must make the
// event durable before it returns nil, and return soon: ricloud waits for the
// answer. Work that takes longer belongs behind a [FileStore] or a queue.
//
// The checks, in order, and the answers:
//
//	method                       405
//	content type                 415
//	length, if it is said        413
//	signature header             400
//	body                         413 too large, 408 too slow
//	signature, time              401
//	JSON, id, id in the path     400
//	duplicate                    204 without another effect
//	same id, other content       409
//	accept returns an error      503 with Retry-After: it will be delivered again
//	accept panics                500
//	accepted                     204
//
// Answers hold nothing of what was sent.
func Handler(verifier *Verifier, accept func(context.Context, *Event) error, opts ...HandlerOption) http.Handler {
	h := &handler{
		verifier: verifier, accept: accept, maxBody: 1 << 20, readTimeout: 10 * time.Second,
		logger: slog.New(slog.DiscardHandler),
	}
	for _, opt := range opts {
		opt(h)
	}
	if h.store == nil {
		h.store = NewMemoryStore(0)
	}
	return h
}

// retryLater is what a sender is asked to wait when an event could not be
// accepted, in seconds.
const retryLater = 30

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// From the beginning: the server reads on after a refusal, to keep the
	// connection. Where there is no connection to set it on, the server's own
	// limits hold.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.readTimeout))
	e, status, err := h.receive(w, r)
	attrs := []slog.Attr{slog.Int("status", status)}
	if e != nil {
		attrs = append(attrs, slog.String("event", string(e.ID)), slog.String("slug", e.Slug()))
	}
	level := slog.LevelInfo
	if err != nil {
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	h.logger.LogAttrs(r.Context(), level, "webhook: delivery", attrs...)
	switch status {
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodPost)
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(retryLater))
	case http.StatusRequestEntityTooLarge, http.StatusRequestTimeout:
		w.Header().Set("Connection", "close")
	case http.StatusNoContent:
		w.WriteHeader(status)
		return
	}
	http.Error(w, http.StatusText(status), status)
}

// receive takes one delivery through all the checks.
func (h *handler) receive(w http.ResponseWriter, r *http.Request) (*Event, int, error) {
	if r.Method != http.MethodPost {
		return nil, http.StatusMethodNotAllowed, errors.New("webhook: method not allowed; use POST")
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, http.StatusUnsupportedMediaType, errors.New("webhook: content type must be application/json")
	}
	if r.ContentLength > h.maxBody {
		return nil, http.StatusRequestEntityTooLarge, errTooLarge
	}
	sig, err := parseSignature(r.Header)
	if err != nil {
		return nil, http.StatusBadRequest, err
	}
	body, status, err := h.body(w, r)
	if err != nil {
		return nil, status, err
	}
	e, err := h.verifier.verify(sig, body)
	switch {
	case errors.Is(err, ErrSignatureMismatch), errors.Is(err, ErrTimestamp):
		return nil, http.StatusUnauthorized, err
	case errors.Is(err, ErrInvalidEvent):
		return nil, http.StatusBadRequest, err
	case err != nil:
		return nil, http.StatusServiceUnavailable, err
	case !pathAgrees(r.URL.Path, string(e.ID)):
		return nil, http.StatusBadRequest, fmt.Errorf("%w: event id in path differs from the signed body", ErrInvalidEvent)
	}
	status, err = h.take(r.Context(), e)
	return e, status, err
}

var errTooLarge = errors.New("webhook: body too large")

// body reads the body within its limits of size and time.
func (h *handler) body(w http.ResponseWriter, r *http.Request) ([]byte, int, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, http.StatusRequestEntityTooLarge, errTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, http.StatusRequestTimeout, errors.New("webhook: the sender is too slow")
	case err != nil:
		return nil, http.StatusBadRequest, errors.New("webhook: the sender went away")
	}
	// accept may take longer.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return body, 0, nil
}

// take accepts an event, if it was not accepted before.
func (h *handler) take(ctx context.Context, e *Event) (status int, err error) {
	defer func() {
		if recover() != nil { // what it was may hold anything
			status, err = http.StatusInternalServerError, errors.New("webhook: accept panicked")
		}
	}()
	err = h.store.Once(ctx, e.ID, e.Digest(), func() error { return h.accept(ctx, e) })
	switch {
	case err == nil, errors.Is(err, ErrDuplicate):
		return http.StatusNoContent, nil
	case errors.Is(err, ErrConflict):
		return http.StatusConflict, err
	}
	// The text of an error of others is not for logs: nobody knows what it
	// repeats.
	return http.StatusServiceUnavailable, errors.New("webhook: the event could not be accepted now")
}

// pathAgrees reports whether the last element of a path is this event's id, or
// is no event's id at all.
func pathAgrees(path, id string) bool {
	last := path[strings.LastIndexByte(path, '/')+1:]
	return !isUUID(last) || strings.EqualFold(last, id)
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i] | 0x20
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return true
}
