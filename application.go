package keywright

import (
	"context"
	"iter"
	"net/url"
	"strings"
	"time"

	"github.com/keywright/keywright/internal/wire"
)

// ApplicationType is how an application is paid for. Unknown values are kept.
type ApplicationType string

// Types of applications.
const (
	ApplicationUsage  ApplicationType = "Usage"  // by use
	ApplicationPeriod ApplicationType = "Period" // by time
)

// Known reports whether this version knows the type.
func (t ApplicationType) Known() bool { return known(t, ApplicationUsage, ApplicationPeriod) }

// ApplicationScope is what an application covers. Unknown values are kept.
type ApplicationScope string

// Scopes of applications.
const (
	ApplicationIndividual ApplicationScope = "Individual" // one service
	ApplicationGlobal     ApplicationScope = "Global"     // every service
)

// Known reports whether this version knows the scope.
func (s ApplicationScope) Known() bool { return known(s, ApplicationIndividual, ApplicationGlobal) }

// ApplicationRole is what the caller is to an application. Unknown values are
// kept.
type ApplicationRole string

// Roles.
const (
	RoleOwner   ApplicationRole = "owner"   // owns it
	RoleGrantee ApplicationRole = "grantee" // was given credentials of it
)

// Known reports whether this version knows the role.
func (r ApplicationRole) Known() bool { return known(r, RoleOwner, RoleGrantee) }

// Affiliation narrows a list to what the caller owns or was granted.
type Affiliation string

// Affiliations.
const (
	AffiliationOwner   Affiliation = "owner"
	AffiliationGranted Affiliation = "granted"
)

// ServiceType is the kind of a service. Unknown values are kept.
type ServiceType string

// Kinds of services.
const (
	ServiceAPI          ServiceType = "Api"          // Token credentials
	ServiceProxy        ServiceType = "Proxy"        // one Identity credential
	ServiceAgent        ServiceType = "Agent"        // Token credentials
	ServiceDataset      ServiceType = "Dataset"      // data
	ServiceIntegration  ServiceType = "Integration"  // a third party's
	ServiceIntroduction ServiceType = "Introduction" // a page
)

// Known reports whether this version knows the type.
func (t ServiceType) Known() bool {
	return known(t, ServiceAPI, ServiceProxy, ServiceAgent, ServiceDataset, ServiceIntegration, ServiceIntroduction)
}

// Application is a user's subscription to a service of Ace Data Cloud, or to
// all of them. Credentials belong to one.
type Application struct {
	ID                 ApplicationID     `json:"id"`                           // a UUID
	ServiceID          string            `json:"service_id,omitempty"`         // empty for a global one
	Service            *Service          `json:"service,omitempty"`            // expanded, if the provider does so
	UserID             string            `json:"user_id"`                      // owner
	Type               ApplicationType   `json:"type"`                         // Usage or Period
	Scope              ApplicationScope  `json:"scope"`                        // Individual or Global
	Role               ApplicationRole   `json:"role,omitempty"`               // owner or grantee, if the provider says so
	RemainingAmount    *float64          `json:"remaining_amount"`             // in the service's unit; nil: not counted
	UsedAmount         float64           `json:"used_amount"`                  // in the service's unit
	Paid               bool              `json:"paid"`                         // anything was ever paid
	Disabled           bool              `json:"disabled"`                     // its credentials do not work
	AllowConsumeGlobal bool              `json:"allow_consume_global"`         // may draw on the global application
	ExpiredAt          *time.Time        `json:"expired_at"`                   // UTC; nil: never
	Credentials        []*Credential     `json:"credentials,omitempty"`        // summaries with their secrets, if the provider embeds them
	ClientIP           string            `json:"client_ip,omitempty"`          // where it was made from
	ClientFingerprint  string            `json:"client_fingerprint,omitempty"` // what it was made with
	Tags               []string          `json:"tags,omitempty"`               // free labels
	Metadata           map[string]any    `json:"metadata,omitempty"`           // free JSON
	CreatedAt          time.Time         `json:"created_at,omitzero"`          // UTC
	UpdatedAt          time.Time         `json:"updated_at,omitzero"`          // UTC
	Extra              map[string]Secret `json:"-"`                            // members this version does not know, each as JSON
}

// Service is a service of Ace Data Cloud, as far as an application shows it.
type Service struct {
	ID      string            `json:"id"`                 // a UUID
	Alias   string            `json:"alias,omitempty"`    // short name, "openai"
	Title   string            `json:"title,omitempty"`    // display name
	Type    ServiceType       `json:"type"`               // Proxy services have Identity credentials
	IconURL string            `json:"icon_url,omitempty"` // picture
	Unit    string            `json:"unit,omitempty"`     // of all amounts, usually "Credit"
	Extra   map[string]Secret `json:"-"`                  // members this version does not know, each as JSON
}

func (v *Service) decode(o *wire.Object) {
	for o.Next() {
		switch string(o.Key) {
		case "id":
			wire.StringRef(o, &v.ID)
		case "alias":
			o.String(&v.Alias)
		case "title":
			o.String(&v.Title)
		case "type":
			wire.Enum(o, &v.Type, ServiceAPI, ServiceProxy, ServiceAgent, ServiceDataset, ServiceIntegration, ServiceIntroduction)
		case "icon_url":
			o.String(&v.IconURL)
		case "unit":
			wire.Enum(o, &v.Unit, "Credit")
		}
	}
	v.Extra = unknown(o)
}

func (a *Application) decode(o *wire.Object) {
	for o.Next() {
		switch string(o.Key) {
		case "id":
			wire.StringRef(o, &a.ID)
		case "service_id":
			wire.StringRef(o, &a.ServiceID)
		case "service":
			if o.Kind() != "an object" {
				wire.StringRef(o, &a.ServiceID)
				break
			}
			a.Service = new(Service)
			a.Service.decode(o.Object())
		case "user_id":
			wire.StringRef(o, &a.UserID)
		case "type":
			wire.Enum(o, &a.Type, ApplicationUsage, ApplicationPeriod)
		case "scope":
			wire.Enum(o, &a.Scope, ApplicationIndividual, ApplicationGlobal)
		case "role":
			wire.Enum(o, &a.Role, RoleOwner, RoleGrantee)
		case "remaining_amount":
			o.FloatPtr(&a.RemainingAmount)
		case "used_amount":
			o.Float(&a.UsedAmount)
		case "paid":
			o.Bool(&a.Paid)
		case "disabled":
			o.Bool(&a.Disabled)
		case "allow_consume_global":
			o.Bool(&a.AllowConsumeGlobal)
		case "expired_at":
			o.TimePtr(&a.ExpiredAt)
		case "credentials":
			o.List(func(item *wire.Object) {
				c := new(Credential)
				c.decode(item)
				a.Credentials = append(a.Credentials, c)
			})
		case "client_ip":
			o.String(&a.ClientIP)
		case "client_fingerprint":
			o.String(&a.ClientFingerprint)
		case "tags":
			wire.Strings(o, &a.Tags)
		case "metadata":
			decodeMetadata(o, &a.Metadata)
		case "created_at":
			o.Time(&a.CreatedAt)
		case "updated_at":
			o.Time(&a.UpdatedAt)
		}
	}
	a.Extra = unknown(o)
}

func (a *Application) ident() ident { return ident{text: string(a.ID)} }

func (*Application) kind() string { return "application" }

// UnmarshalJSON reads an application as the provider sends it.
func (a *Application) UnmarshalJSON(b []byte) error { return unmarshal(b, a) }

// ApplicationCreateParams are the parameters of a new application: a service,
// or the global scope.
type ApplicationCreateParams struct {
	ServiceID string           `json:"service_id,omitempty"` // required unless Scope is Global; a UUID
	Type      ApplicationType  `json:"type,omitempty"`       // empty: the provider's default
	Scope     ApplicationScope `json:"scope,omitempty"`      // empty: Individual
}

// ApplicationListParams are the filters and the page of a list. Without
// UserIDs it is the caller's own applications.
type ApplicationListParams struct {
	UserIDs      []string           // owners, or holders of grants
	Affiliations []Affiliation      // none: owner
	ServiceIDs   []string           // UUIDs
	Scopes       []ApplicationScope // only these scopes
	Types        []ApplicationType  // only these types
	Ordering     Ordering           // empty: the provider's order
	Limit        int                // items a page, 1 to 100; 0: the provider's default of 10 for List, 100 for All
	Offset       int                // items to skip
}

// ApplicationService finds and makes the applications that credentials belong
// to.
type ApplicationService service

const applicationsPath = aceDataAPI + "/applications/"

// Create subscribes to a service: POST /api/v1/applications/. It is sent once;
// a lost answer is an error whose Recover looks for the application that may
// have been made. One that exists already is [ErrDuplicate].
func (s *ApplicationService) Create(ctx context.Context, p ApplicationCreateParams, opts ...CallOption) (*Application, error) {
	op := &opApplicationCreate
	switch {
	case p.ServiceID != "":
		if reason := uuidProblem(p.ServiceID); reason != "" {
			return nil, &ParamError{Op: op.name, Field: "service_id", Reason: reason, Err: ErrInvalidID}
		}
	case p.Scope != ApplicationGlobal:
		return nil, &ParamError{Op: op.name, Field: "service_id", Reason: "is required, unless the scope is Global"}
	}
	p.ServiceID = strings.ToLower(p.ServiceID)
	r := &request{op: op, path: applicationsPath, params: p}
	r.probe = probeCreated((*service)(s), func(ctx context.Context, m *Meta) (*Page[Application], error) {
		q := ApplicationListParams{Ordering: NewestFirst, Limit: maxAceDataLimit}
		if p.ServiceID != "" {
			q.ServiceIDs = []string{p.ServiceID}
		}
		return s.List(ctx, q, WithMeta(m))
	}, func(a *Application) time.Time { return a.CreatedAt }, func(a *Application) bool {
		return a.ServiceID == p.ServiceID && (p.Type == "" || a.Type == p.Type) && (p.Scope == "" || a.Scope == p.Scope)
	})
	return change[Application](ctx, (*service)(s), r, ident{}, opts)
}

// Retrieve returns an application: GET /api/v1/applications/{id}. It is a
// read, and retried.
func (s *ApplicationService) Retrieve(ctx context.Context, id ApplicationID, opts ...CallOption) (*Application, error) {
	path, err := uuidPath(&opApplicationRetrieve, applicationsPath, id)
	if err != nil {
		return nil, err
	}
	return fetch[Application](ctx, (*service)(s), &request{op: &opApplicationRetrieve, path: path}, ident{text: string(id)}, opts)
}

// List returns one page of applications: GET /api/v1/applications/. It is a
// read, and retried.
func (s *ApplicationService) List(ctx context.Context, p ApplicationListParams, opts ...CallOption) (*Page[Application], error) {
	l, err := s.lister(p, opts)
	if err != nil {
		return nil, err
	}
	return l.list(ctx)
}

// All iterates over applications: GET /api/v1/applications/.
func (s *ApplicationService) All(ctx context.Context, p ApplicationListParams, opts ...CallOption) iter.Seq2[*Application, error] {
	l, err := s.lister(p, opts)
	if err != nil {
		return failed[Application](err)
	}
	return l.all(ctx)
}

func (s *ApplicationService) lister(p ApplicationListParams, opts []CallOption) (lister[Application, *Application], error) {
	l := lister[Application, *Application]{
		s: (*service)(s), op: &opApplicationList, path: applicationsPath, paged: byOffset,
		limit: p.Limit, offset: p.Offset, opts: opts, filters: url.Values{},
	}
	if err := setUUIDs(l.op, l.filters, "service_id", p.ServiceIDs); err != nil {
		return l, err
	}
	if err := addTexts(l.op, l.filters, "user_id", p.UserIDs); err != nil {
		return l, err
	}
	for i, v := range p.Affiliations {
		if v == "" {
			return l, &ParamError{Op: l.op.name, Field: "affiliation[" + itoa(i) + "]", Reason: "must not be empty"}
		}
		l.filters.Add("affiliation", string(v))
	}
	for _, v := range p.Scopes {
		l.filters.Add("scope", string(v))
	}
	for _, v := range p.Types {
		l.filters.Add("type", string(v))
	}
	if len(p.UserIDs) == 0 {
		// Applications, unlike credentials, know the caller by this name.
		l.narrow = func(_ context.Context, cfg callConfig, q url.Values) error {
			if !cfg.anyHolder {
				q.Set("user_id", "me")
			}
			return nil
		}
	}
	return l, setOrdering(l.op, l.filters, p.Ordering)
}
