package keywright

import (
	"context"
	"encoding/json"
	"iter"
	"net/url"
	"strings"
	"time"

	"github.com/keywright/keywright/internal/wire"
)

// ConfigState is the state of a storage or webhook config. Unknown values are
// kept.
type ConfigState string

// States of configs.
const (
	ConfigNew         ConfigState = "new"         // created or updated, and not tested since
	ConfigValid       ConfigState = "valid"       // passed its test
	ConfigInvalid     ConfigState = "invalid"     // failed its test: update it or test again
	ConfigDeactivated ConfigState = "deactivated" // turned off by the organisation
)

// Known reports whether this version knows the state.
func (s ConfigState) Known() bool {
	return known(s, ConfigNew, ConfigValid, ConfigInvalid, ConfigDeactivated)
}

// StorageType is the kind of a storage bucket. Unknown values are kept.
type StorageType string

// Kinds of storage.
const (
	StorageGoogle StorageType = "gs" // Google Cloud Storage
	StorageS3     StorageType = "s3" // Amazon S3
)

// Known reports whether this version knows the type.
func (t StorageType) Known() bool { return known(t, StorageGoogle, StorageS3) }

// StorageConfig says where ricloud puts results.
type StorageConfig struct {
	ID                StorageConfigID   `json:"id"`                    // from 1
	OrganisationID    OrganisationID    `json:"organisation"`          // owner
	Type              StorageType       `json:"type"`                  // derived from URL by the provider
	URL               string            `json:"url"`                   // gs://bucket/path or s3://bucket/path
	Credentials       Secret            `json:"credentials,omitzero"`  // as JSON; absent if the provider withholds them
	SignedURLsEnabled bool              `json:"signed_urls_enabled"`   // whether results get signed URLs
	SignedURLsExpiry  *time.Duration    `json:"-"`                     // how long a signed URL is good for; whole seconds on the wire
	State             ConfigState       `json:"state"`                 // whether it passed its test
	DateCreated       time.Time         `json:"date_created,omitzero"` // UTC
	Extra             map[string]Secret `json:"-"`                     // members this version does not know, each as JSON
}

func (c *StorageConfig) decode(o *wire.Object) {
	for o.Next() {
		switch string(o.Key) {
		case "id":
			wire.IntRef(o, &c.ID)
		case "resource":
			o.Skip()
		case "organisation":
			wire.IntRef(o, &c.OrganisationID)
		case "type":
			wire.Enum(o, &c.Type, StorageGoogle, StorageS3)
		case "url":
			o.String(&c.URL)
		case "credentials":
			if raw := o.Raw(); string(raw) != "null" {
				c.Credentials = NewSecret(string(raw))
			}
		case "signed_urls_enabled":
			o.Bool(&c.SignedURLsEnabled)
		case "signed_urls_expiry":
			o.Seconds(&c.SignedURLsExpiry)
		case "state":
			wire.Enum(o, &c.State, ConfigNew, ConfigValid, ConfigInvalid, ConfigDeactivated)
		case "date_created":
			o.Time(&c.DateCreated)
		}
	}
	c.Extra = unknown(o)
}

func (c *StorageConfig) ident() ident { return ident{number: int64(c.ID)} }

func (*StorageConfig) kind() string { return "storage_config" }

// UnmarshalJSON reads a storage config as the provider sends it.
func (c *StorageConfig) UnmarshalJSON(b []byte) error { return unmarshal(b, c) }

// seconds is a duration as the provider takes it: a number of seconds.
type seconds time.Duration

func (s seconds) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(s).Seconds())
}

func secondsOpt(d Opt[time.Duration]) Opt[seconds] {
	return Opt[seconds]{value: seconds(d.value), state: d.state}
}

// StorageConfigCreateParams are the parameters of a new storage config.
type StorageConfigCreateParams struct {
	URL               string             // required: gs://bucket/path or s3://bucket/path
	Credentials       StorageCredentials // required: see [GoogleCredentials], [AWSCredentials], [ReadCredentialsFile]
	SignedURLsEnabled Opt[bool]          // default false
	SignedURLsExpiry  Opt[time.Duration] // whole seconds
}

// StorageConfigUpdateParams are what of a storage config can be changed. At
// least one must be set.
type StorageConfigUpdateParams struct {
	URL               Opt[string]        // gs://bucket/path or s3://bucket/path
	Credentials       StorageCredentials // nil: unchanged
	SignedURLsEnabled Opt[bool]          // whether results get signed URLs
	SignedURLsExpiry  Opt[time.Duration] // whole seconds
}

// storageBody is either as it is sent.
type storageBody struct {
	URL               Opt[string]     `json:"url,omitzero"`
	Credentials       json.RawMessage `json:"credentials,omitempty"`
	SignedURLsEnabled Opt[bool]       `json:"signed_urls_enabled,omitzero"`
	SignedURLsExpiry  Opt[seconds]    `json:"signed_urls_expiry,omitzero"`
}

// storageRequest checks the parameters of a create or update and builds its
// body.
func storageRequest(op *operation, p StorageConfigUpdateParams) (*request, *storageBody, error) {
	b := &storageBody{URL: p.URL, SignedURLsEnabled: p.SignedURLsEnabled, SignedURLsExpiry: secondsOpt(p.SignedURLsExpiry)}
	r := &request{op: op, params: b}
	if raw, ok := p.URL.Get(); ok {
		scheme, rest, found := strings.Cut(raw, "://")
		if !found || rest == "" || !StorageType(scheme).Known() || strings.HasPrefix(rest, "/") {
			return nil, nil, &ParamError{Op: op.name, Field: "url", Reason: "must be gs://bucket/path or s3://bucket/path", Err: ErrInvalidURL}
		}
		if strings.Contains(rest, "@") {
			return nil, nil, &ParamError{Op: op.name, Field: "url", Reason: "must not contain user info (value not shown)", Err: ErrInvalidURL}
		}
	}
	if d, ok := p.SignedURLsExpiry.Get(); ok && (d <= 0 || d%time.Second != 0) {
		return nil, nil, &ParamError{Op: op.name, Field: "signed_urls_expiry", Reason: "must be whole seconds, greater than 0"}
	}
	if !isNil(p.Credentials) {
		raw, secrets, err := p.Credentials.storageCredentials()
		if err != nil {
			return nil, nil, &ParamError{Op: op.name, Field: "credentials", Reason: err.Error()}
		}
		b.Credentials, r.hide = raw, secrets
	}
	return r, b, nil
}

// StorageConfigListParams are the page of a list.
type StorageConfigListParams struct {
	Limit    int             // items a page, 1 to 1000; 0: the provider's default of 10 for List, 100 for All
	AfterID  StorageConfigID // start behind this config
	BeforeID StorageConfigID // stop before this config
}

// StorageConfigService manages where results are stored.
type StorageConfigService service

// Create makes a storage config: POST /configs/storage. It is sent once; a
// lost answer is an error whose Recover looks for the config that may have
// been made.
func (s *StorageConfigService) Create(ctx context.Context, p StorageConfigCreateParams, opts ...CallOption) (*StorageConfig, error) {
	op := &opStorageCreate
	if p.URL == "" {
		return nil, &ParamError{Op: op.name, Field: "url", Reason: "is required"}
	}
	if isNil(p.Credentials) {
		return nil, &ParamError{Op: op.name, Field: "credentials", Reason: "is required"}
	}
	r, _, err := storageRequest(op, StorageConfigUpdateParams{Set(p.URL), p.Credentials, p.SignedURLsEnabled, p.SignedURLsExpiry})
	if err != nil {
		return nil, err
	}
	r.path = "/configs/storage"
	r.probe = probeCreated((*service)(s), func(ctx context.Context, m *Meta) (*Page[StorageConfig], error) {
		return s.List(ctx, StorageConfigListParams{Limit: allLimit}, WithMeta(m))
	}, func(c *StorageConfig) time.Time { return c.DateCreated }, func(c *StorageConfig) bool { return c.URL == p.URL })
	return change[StorageConfig](ctx, (*service)(s), r, ident{}, opts)
}

// Retrieve returns a storage config: GET /configs/storage/{id}. It is a read,
// and retried.
func (s *StorageConfigService) Retrieve(ctx context.Context, id StorageConfigID, opts ...CallOption) (*StorageConfig, error) {
	path, err := numberPath(&opStorageRetrieve, "/configs/storage", id, "")
	if err != nil {
		return nil, err
	}
	return fetch[StorageConfig](ctx, (*service)(s), &request{op: &opStorageRetrieve, path: path}, ident{number: int64(id)}, opts)
}

// List returns one page of storage configs: GET /configs/storage. It is a
// read, and retried.
func (s *StorageConfigService) List(ctx context.Context, p StorageConfigListParams, opts ...CallOption) (*Page[StorageConfig], error) {
	l, err := s.lister(p, opts)
	if err != nil {
		return nil, err
	}
	return l.list(ctx)
}

// All iterates over storage configs: GET /configs/storage.
func (s *StorageConfigService) All(ctx context.Context, p StorageConfigListParams, opts ...CallOption) iter.Seq2[*StorageConfig, error] {
	l, err := s.lister(p, opts)
	if err != nil {
		return failed[StorageConfig](err)
	}
	return l.all(ctx)
}

func (s *StorageConfigService) lister(p StorageConfigListParams, opts []CallOption) (lister[StorageConfig, *StorageConfig], error) {
	l := lister[StorageConfig, *StorageConfig]{s: (*service)(s), op: &opStorageList, path: "/configs/storage", limit: p.Limit, opts: opts, filters: url.Values{}}
	return l, setWindow(l.op, l.filters, int64(p.AfterID), int64(p.BeforeID))
}

// Update changes config at the provider, and *config becomes its answer: POST
// /configs/storage/{id}. It is sent again only after proof that it did
// nothing.
func (s *StorageConfigService) Update(ctx context.Context, config *StorageConfig, p StorageConfigUpdateParams, opts ...CallOption) error {
	if config == nil {
		return nilResource(&opStorageUpdate)
	}
	got, err := s.UpdateWithID(ctx, config.ID, p, opts...)
	if err == nil {
		*config = *got
	}
	return err
}

// UpdateWithID is [StorageConfigService.Update] for a config known by its id.
func (s *StorageConfigService) UpdateWithID(ctx context.Context, id StorageConfigID, p StorageConfigUpdateParams, opts ...CallOption) (*StorageConfig, error) {
	op := &opStorageUpdate
	path, err := numberPath(op, "/configs/storage", id, "")
	if err != nil {
		return nil, err
	}
	if p.URL.IsZero() && isNil(p.Credentials) && p.SignedURLsEnabled.IsZero() && p.SignedURLsExpiry.IsZero() {
		return nil, nothingToUpdate(op)
	}
	r, body, err := storageRequest(op, p)
	if err != nil {
		return nil, err
	}
	r.path = path
	r.probe = probeUpdated(
		func(ctx context.Context) (*StorageConfig, error) { return s.Retrieve(ctx, id) },
		func(c *StorageConfig) Outcome {
			shown := map[string]any{"url": c.URL}
			// Older versions of the API show neither; false and null would look
			// the same.
			if d := c.SignedURLsExpiry; d != nil || c.SignedURLsEnabled {
				shown["signed_urls_enabled"], shown["signed_urls_expiry"] = c.SignedURLsEnabled, nil
				if d != nil {
					shown["signed_urls_expiry"] = d.Seconds()
				}
			}
			if !c.Credentials.IsZero() {
				shown["credentials"] = json.RawMessage(c.Credentials.Reveal())
			}
			return reflects(body, shown)
		})
	return change[StorageConfig](ctx, (*service)(s), r, ident{number: int64(id)}, opts)
}

// Delete deletes config: DELETE /configs/storage/{id}. A delete whose answer
// is lost is looked into before it returns: success if the config is gone, and
// sent again if it is still there after the settle time.
func (s *StorageConfigService) Delete(ctx context.Context, config *StorageConfig, opts ...CallOption) error {
	if config == nil {
		return nilResource(&opStorageDelete)
	}
	return s.DeleteWithID(ctx, config.ID, opts...)
}

// DeleteWithID is [StorageConfigService.Delete] for a config known by its id.
func (s *StorageConfigService) DeleteWithID(ctx context.Context, id StorageConfigID, opts ...CallOption) error {
	path, err := numberPath(&opStorageDelete, "/configs/storage", id, "")
	if err != nil {
		return err
	}
	return (*service)(s).remove(ctx, &request{op: &opStorageDelete, path: path}, func(ctx context.Context) error {
		_, err := s.Retrieve(ctx, id)
		return err
	}, opts)
}

// Test starts a task that tests config: POST /configs/storage/{id}/test. Give
// [WithAwait] to have the provider wait for its end, or pass the task to
// [TaskService.Wait]. It is sent once; Recover looks for the task.
func (s *StorageConfigService) Test(ctx context.Context, config *StorageConfig, opts ...CallOption) (*Task, error) {
	if config == nil {
		return nil, nilResource(&opStorageTest)
	}
	return s.TestWithID(ctx, config.ID, opts...)
}

// TestWithID is [StorageConfigService.Test] for a config known by its id.
func (s *StorageConfigService) TestWithID(ctx context.Context, id StorageConfigID, opts ...CallOption) (*Task, error) {
	path, err := numberPath(&opStorageTest, "/configs/storage", id, "/test")
	if err != nil {
		return nil, err
	}
	return startTest(ctx, (*service)(s), &opStorageTest, path, "storage_config.test", opts)
}
