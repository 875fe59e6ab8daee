#include "tests/simulation/host/kept_plans.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>

namespace iscsi_blkback {
namespace {

[[noreturn]] void give_up(const std::string& path, const std::string& why) {
  std::fprintf(stderr, "%s: %s\n", path.c_str(), why.c_str());
  std::abort();
}

Rule broken_rule(const std::string& path, std::string_view text) {
  constexpr std::string_view kBreaks = "# breaks ";
  const std::size_t at = text.find(kBreaks);
  if (at == std::string_view::npos) {
    give_up(path, "no line says \"# breaks RULE\"");
  }
  text.remove_prefix(at + kBreaks.size());
  const auto rule = rule_named(text.substr(0, text.find('\n')));
  if (!rule) {
    give_up(path, "the rule behind \"# breaks\" is unknown");
  }
  return *rule;
}

std::vector<KeptPlan> plans_in(const std::string& folder) {
  std::vector<KeptPlan> plans;
  if (!std::filesystem::exists(folder)) {
    return plans;
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".plan") {
      continue;
    }
    std::ifstream file(entry.path());
    const std::string text(std::istreambuf_iterator<char>(file), {});
    auto plan = parse_plan(text);
    if (!plan) {
      give_up(entry.path(), plan.error().message);
    }
    plans.push_back({entry.path().filename(), broken_rule(entry.path(), text), std::move(*plan)});
  }
  std::sort(plans.begin(), plans.end(),
            [](const KeptPlan& a, const KeptPlan& b) { return a.name < b.name; });
  return plans;
}

}  // namespace

std::vector<KeptPlan> mended_plans(const std::string& folder) {
  return plans_in(folder);
}

std::vector<KeptPlan> unmended_plans(const std::string& folder) {
  return plans_in(folder + "/unmended");
}

std::set<Rule> unmended_rules(const std::string& folder) {
  std::set<Rule> rules;
  for (const KeptPlan& plan : unmended_plans(folder)) {
    rules.insert(plan.rule);
  }
  return rules;
}

}  // namespace iscsi_blkback
