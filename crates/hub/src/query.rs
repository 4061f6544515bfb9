//! Searching models: what can be asked, and how the Hub wants it asked.

use crate::url::query;

/// The order of results.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sort {
    /// What many look at now.
    #[default]
    Trending,
    /// Downloads of the last month.
    Downloads,
    /// Likes.
    Likes,
    /// The last change.
    Modified,
    /// Creation.
    Created,
}

impl Sort {
    fn key(self) -> &'static str {
        match self {
            Self::Trending => "trendingScore",
            Self::Downloads => "downloads",
            Self::Likes => "likes",
            Self::Modified => "lastModified",
            Self::Created => "createdAt",
        }
    }
}

/// What to look for; all conditions hold together.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Text in names.
    pub text: Option<String>,
    /// User or organisation.
    pub author: Option<String>,
    /// Task: `text-generation`.
    pub task: Option<String>,
    /// Library: `transformers`, `gguf`.
    pub library: Option<String>,
    /// Licence: `apache-2.0`.
    pub license: Option<String>,
    /// Any other tags.
    pub tags: Vec<String>,
    /// The order.
    pub sort: Sort,
    /// Results, at most.
    pub limit: usize,
}

impl Query {
    /// Path and query of the first page.
    pub(crate) fn path(&self, page: usize) -> String {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        let license = self.license.as_ref().map(|l| format!("license:{}", l.trim_start_matches("license:")));
        let some = [("search", &self.text), ("author", &self.author), ("pipeline_tag", &self.task)];
        pairs.extend(some.into_iter().filter_map(|(k, v)| Some((k, v.as_deref()?))));
        let filters = self.library.iter().chain(license.iter()).chain(&self.tags);
        pairs.extend(filters.map(|v| ("filter", v.as_str())));
        let limit = page.to_string();
        pairs.extend([("sort", self.sort.key()), ("limit", &limit), ("full", "true")]);
        format!("/api/models{}", query(&pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_become_parameters() {
        let q = Query {
            text: Some("qwen 3".into()),
            task: Some("text-generation".into()),
            library: Some("gguf".into()),
            license: Some("apache-2.0".into()),
            tags: vec!["en".into()],
            sort: Sort::Downloads,
            ..Query::default()
        };
        assert_eq!(
            q.path(20),
            "/api/models?search=qwen%203&pipeline_tag=text-generation&filter=gguf&filter=license%3Aapache-2.0\
             &filter=en&sort=downloads&limit=20&full=true"
        );
    }
}
