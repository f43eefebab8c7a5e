package keywrighttest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxAttempts     = 5
	deliveryTimeout = 10 * time.Second
)

// deliveryDelays are the waits before attempts 2 to 5.
var deliveryDelays = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute}

var errNoWebhook = errors.New("keywrighttest: no webhook config is in effect")

// Delivery says how one delivery of an event differs from what the provider
// would send. Its zero value differs in nothing.
type Delivery struct {
	URL    string    // in place of the config's: the event's id is appended to it; only loopback is called
	Secret string    // signs, in place of the config's
	At     time.Time // of the signature; zero: the fake's clock

	// Edit changes the body before it is signed, so that the signature is
	// right. It may change it in place.
	Edit func(body []byte) []byte

	// Tamper changes the headers of the request, and returns the body to send
	// in place of the one that was signed. It may also set r.ContentLength: -1
	// sends the body in chunks; a number that is too large breaks the
	// connection where the body ends.
	Tamper func(r *http.Request, body []byte) []byte
}

// Attempt is a delivery that has ended, well or not.
type Attempt struct {
	Event  string    // the event's id
	N      int       // 1 for the event's first attempt
	Status int       // of the answer; 0: there was none
	At     time.Time // the signature's time, by the fake's clock, in UTC
	Err    error     // why there was no answer; nil with any status
}

// WithDeliveryDelays sets the waits before the second to the fifth attempt to
// deliver an event, in real time. If there are fewer than four, the last one
// repeats; with none, they are 1s, 5s, 30s and 2m, as by default.
func WithDeliveryDelays(d ...time.Duration) Option {
	return func(o *options) { o.deliveryDelays = slices.Clone(d) }
}

// deliveryDelay is the wait before attempt n, which is 2 or more.
func (o *options) deliveryDelay(n int) time.Duration {
	d := o.deliveryDelays
	if len(d) == 0 {
		d = deliveryDelays
	}
	return d[min(n-2, len(d)-1)]
}

// Emit makes something happen: it records an event, such as "task",
// "succeeded", about the resource data, and returns its id. It panics if data
// cannot be JSON.
//
// If a webhook config is in effect whose URL is on loopback, the event is
// delivered in the background: up to five attempts, see [WithDeliveryDelays],
// until one is answered 2xx. In effect is the webhook config of the first key,
// else the organisation's default, as it is at the call. Any other event stays
// pending. Events that are emitted one right after the other may arrive in any
// order, as the provider's may: use [Ricloud.WaitDelivered] in between if that
// matters.
func (f *Ricloud) Emit(kind, action string, data map[string]any) (id string) {
	raw, err := json.Marshal(object(data).clone())
	if err != nil {
		panic("keywrighttest: " + err.Error())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.emit(kind, action, json.RawMessage(raw))
}

// Deliver sends an event once, now, in the way that d says, and returns the
// status of the answer. It serves for duplicates, late deliveries, deliveries
// out of order and forgeries: with a zero d it sends byte for byte the body of
// the event's last attempt. It neither changes the event's state nor counts
// among the [Ricloud.Attempts].
func (f *Ricloud) Deliver(id string, d Delivery) (status int, err error) {
	f.mu.Lock()
	e, config := find(f.events, id), f.webhookInEffect()
	f.mu.Unlock()
	if e == nil {
		return 0, errNoEvent(id)
	}
	if config == nil && (d.URL == "" || d.Secret == "") {
		return 0, errNoWebhook
	}
	return f.post(e, config, d)
}

// Attempts returns the deliveries so far, in the order in which they ended:
// those of [Ricloud.Emit], of tasks, and of config tests.
func (f *Ricloud) Attempts() []Attempt {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.attempts)
}

// WaitDelivered waits until an event is "delivered" or "failed", and returns
// that. The error says that ctx ended, that the fake was closed, that there is
// no such event, or that it is one that nobody delivers, because no webhook
// config was in effect when it happened, or one that is not on loopback.
func (f *Ricloud) WaitDelivered(ctx context.Context, id string) (state string, err error) {
	f.mu.Lock()
	e, settled := find(f.events, id), f.settled[id]
	f.mu.Unlock()
	if e == nil {
		return "", errNoEvent(id)
	}
	if settled == nil {
		err = fmt.Errorf("keywrighttest: event %s is not delivered to anybody", id)
	} else {
		select {
		case <-settled:
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-f.ctx.Done():
			err = errors.New("keywrighttest: the fake is closed")
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if state = e.text("state"); state != "pending" {
		err = nil
	}
	return state, err
}

func errNoEvent(id string) error { return fmt.Errorf("keywrighttest: no event %q", id) }

// Sign returns the Ricloud-Signature header of a body that is delivered at t:
// "t=<unix seconds>,s=<base64 of HMAC-SHA256 over seconds, a dot and the
// body>".
func Sign(secret string, t time.Time, body []byte) string {
	seconds := strconv.FormatInt(t.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(seconds + "."))
	mac.Write(body)
	return "t=" + seconds + ",s=" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// event records an event, whose data nobody changes from now on. The caller
// holds mu.
func (f *Ricloud) event(kind, action string, data any) object {
	e := template("ricloud/event_webhook_config_test.json")
	e["id"], e["type"], e["action"] = newUUID(), kind, action
	e["data"], e["date_created"] = data, f.stamp()
	f.events = append(f.events, e)
	return e
}

// emit records an event and begins to deliver it, if that is to be. The caller
// holds mu.
func (f *Ricloud) emit(kind, action string, data any) (id string) {
	e := f.event(kind, action, data)
	id = e.text("id")
	config := f.webhookInEffect()
	if config == nil || f.ctx.Err() != nil { // after Close nothing may be begun
		return id
	}
	if _, err := target(config.text("url"), id); err != nil {
		return id
	}
	f.settled[id] = make(chan struct{})
	f.work.Go(func() {
		ok := false
		for n := 1; n <= maxAttempts && !ok; n++ {
			if n > 1 && !wait(f.ctx, f.opts.deliveryDelay(n)) {
				return // closed: the event stays pending
			}
			ok = f.attempt(e, config, n)
		}
		if ok || f.ctx.Err() == nil {
			f.settle(e, ok)
		}
	})
	return id
}

// webhookInEffect returns a copy of the webhook config that events are
// delivered to, or nil. The caller holds mu.
func (f *Ricloud) webhookInEffect() object {
	var config object
	if k := f.key(1); k != nil {
		config = find(f.webhooks, k.fields["webhook_config"])
	}
	if config == nil {
		config = find(f.webhooks, f.organisation["webhook_config_default"])
	}
	if config == nil {
		return nil
	}
	return config.clone()
}

// testWebhook delivers a test event to a webhook, if that is on loopback, and
// returns an error code, "" for success.
func (f *Ricloud) testWebhook(config object) string {
	f.mu.Lock()
	e := f.event("webhook_config", "test", config.clone())
	f.settled[e.text("id")] = make(chan struct{})
	f.mu.Unlock()
	_, err := target(config.text("url"), e.text("id"))
	ok := errors.Is(err, errNotLoopback) || err == nil && f.attempt(e, config, 1)
	f.settle(e, ok)
	if !ok {
		return "delivery-failed"
	}
	return ""
}

// attempt delivers an event for the nth time and reports whether the answer
// was 2xx.
func (f *Ricloud) attempt(e, config object, n int) bool {
	f.mu.Lock()
	e["retries"] = n - 1
	f.mu.Unlock()
	at := f.clock.Now()
	status, err := f.post(e, config, Delivery{At: at})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempts = append(f.attempts, Attempt{Event: e.text("id"), N: n, Status: status, At: at, Err: err})
	return status >= 200 && status < 300
}

// settle ends the delivery of an event and wakes those who wait for it.
func (f *Ricloud) settle(e object, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e["state"] = "failed"
	if ok {
		e["state"], e["date_delivered"] = "delivered", f.stamp()
	}
	close(f.settled[e.text("id")])
}

// post sends an event. The config may be nil if d has what it would give.
func (f *Ricloud) post(e, config object, d Delivery) (status int, err error) {
	f.mu.Lock()
	sent := e.clone()
	f.mu.Unlock()
	sent["state"], sent["date_delivered"] = "pending", nil // as ever when the provider sends it
	body, err := json.Marshal(sent)
	if err != nil {
		panic("keywrighttest: " + err.Error())
	}
	if d.URL == "" {
		d.URL = config.text("url")
	}
	if d.Secret == "" {
		d.Secret = config.text("secret")
	}
	if d.At.IsZero() {
		d.At = f.clock.Now()
	}
	u, err := target(d.URL, sent.text("id"))
	if err != nil {
		return 0, err
	}
	if d.Edit != nil {
		body = d.Edit(body)
	}
	ctx, cancel := context.WithTimeout(f.ctx, deliveryTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "ricloud")
	req.Header.Set("Ricloud-Signature", Sign(d.Secret, d.At, body))
	req.ContentLength = int64(len(body))
	if d.Tamper != nil {
		signed := req.ContentLength
		body = d.Tamper(req, body)
		if req.ContentLength == signed {
			req.ContentLength = int64(len(body))
		}
		if !loopback(req.URL) {
			return 0, errNotLoopback
		}
	}
	req.Body = http.NoBody
	if len(body) > 0 {
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	// One request, one connection; and a transport follows no redirect.
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close()
	return resp.StatusCode, nil
}

var errNotLoopback = errors.New("keywrighttest: the target is not on loopback")

// target returns where an event is sent to.
func target(base, id string) (*url.URL, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("keywrighttest: %w", err)
	}
	if !loopback(u) {
		return nil, errNotLoopback
	}
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/")+"/"+id, ""
	return u, nil
}

func loopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}
